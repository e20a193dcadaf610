"""Every method on every family: attached and correct in all modes, or refused with a reason."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from .contract import MERGEABLE, METHODS, check, is_exported
from .families import FAMILIES, FOREIGN, TIMM

TRANSFORMERS = ("ViT", "DeiT distilled", "DINOv2 registers", "DINOv3", "BEiT", "EVA-02", "Swin", "Swin v2")
WITHOUT_MLP = ("ResNet", "ResNeXt", "BiT", "EfficientNet", "EfficientNet Lite", "MobileNet v3", "RegNet", "NFNet")
MAPS = (*WITHOUT_MLP, "ConvNeXt", "MaxViT", "Swin", "Swin v2")

REASONS: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {
    ("VPT (shallow)", "VPT (deep)"): {
        "maps have no place for further tokens": MAPS,
        "rotary embeddings": ("DINOv3", "EVA-02"),
        "position bias": ("BEiT",),
        "attention mask": ("BERT",),
        "needs blocks": ("MultiheadAttention",),
    },
    ("Bottleneck (Pfeiffer)",): {
        "made of an attention and an MLP": (*WITHOUT_MLP, "BERT", "MultiheadAttention"),
    },
    ("Bottleneck (Houlsby)",): {
        "made of an attention and an MLP": (*WITHOUT_MLP, "BERT"),
    },
    ("Bottleneck (post)", "Side network"): {"needs blocks": ("MultiheadAttention",)},
    ("AdaptFormer",): {"an MLP that is a module of its own": (*WITHOUT_MLP, *FOREIGN)},
    ("Convpass",): {
        "an MLP that is a module of its own": (*WITHOUT_MLP, "BERT"),
        "form no map": ("TransformerEncoder", "MultiheadAttention"),
    },
    ("Conv-Adapter",): {"above 1×1": (*TRANSFORMERS, *FOREIGN)},
    ("(IA)³",): {"adds the bias itself": ("MultiheadAttention",)},
    ("Norm tuning",): {"needs a norm": ("NFNet",)},
    ("Partial fine-tuning",): {"has no blocks": ("MultiheadAttention",)},
}
REFUSALS = {
    (method, family): reason
    for methods, reasons in REASONS.items()
    for method in methods
    for reason, families in reasons.items()
    for family in families
}


EXPORTED = {(method, family) for method in MERGEABLE for family in FAMILIES if is_exported(method, family)}
CELLS = [
    pytest.param(*cell, marks=pytest.mark.slow) if cell in EXPORTED else cell
    for cell in itertools.product(METHODS, FAMILIES)
]
"""A merged model that is exported takes a second."""


@pytest.mark.parametrize(("method", "family"), CELLS)
def test_contract(method: str, family: str) -> None:
    cell = check(method, family)
    expected = REFUSALS.get((method, family), "")
    assert bool(expected) == bool(cell.refusal), cell.refusal or "attached, though a refusal was expected"
    assert expected in cell.refusal


def test_each_method_and_each_familyis_exported() -> None:
    assert {method for method, _ in EXPORTED} == set(MERGEABLE)
    assert {family for _, family in EXPORTED} == set(FAMILIES)


def test_at_least_160_cells_attach() -> None:
    assert len(METHODS) * len(FAMILIES) - len(REFUSALS) >= 160
    assert set(TIMM) | set(FOREIGN) == set(FAMILIES)


def test_the_table_in_the_docs_agrees() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "adapter-layers.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert tuple(table[0][1:]) == tuple(METHODS)
    marks = {row[0]: dict(zip(METHODS, row[1:], strict=True)) for row in table[2 : 2 + len(FAMILIES)]}
    assert tuple(marks) == FAMILIES
    refused = {(method, family) for family in FAMILIES for method in METHODS if marks[family][method].isdecimal()}
    assert refused == set(REFUSALS)
    merged = {method for family in FAMILIES for method in METHODS if marks[family][method] == "⊕"}
    assert merged == set(MERGEABLE)
