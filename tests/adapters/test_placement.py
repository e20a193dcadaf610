"""Which sites a selection includes, and the error when it includes none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from visionadapt.adapters import ConvAdapter, LoRA, NormTuning, attach, select
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError


def _sites(blocks: int = 12) -> list[Site]:
    module = nn.Linear(4, 4)
    stem = Site("stem", module, "conv", "NCHW", 4)
    inside = [
        Site(f"blocks.{block}.{leaf}", module, "linear", "NLC", 4, block=block, stage=block // 4)
        for block in range(blocks)
        for leaf in ("attn.qkv", "mlp.fc1")
    ]
    return [stem, *inside]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ("first:3", [0, 1, 2]),
        ("last:2", [10, 11]),
        ("last:66%", list(range(4, 12))),
        ("last:1%", [11]),
        ("first:100%", list(range(12))),
        ("0,3,5", [0, 3, 5]),
        (" 7 ", [7]),
    ],
)
def test_blocks(blocks: str, expected: list[int]) -> None:
    chosen = select(_sites(), blocks, where="*.qkv")
    assert [site.block for site in chosen] == expected


def test_all_includes_sites_outside_of_blocks() -> None:
    assert select(_sites())[0].name == "stem"
    assert all(site.block is not None for site in select(_sites(), blocks="first:100%"))


def test_stages_and_patterns_restrict_together() -> None:
    chosen = select(_sites(), blocks="last:6", stages="first:2", where="*.fc1, *.qkv")
    assert [site.name for site in chosen] == [
        "blocks.6.attn.qkv",
        "blocks.6.mlp.fc1",
        "blocks.7.attn.qkv",
        "blocks.7.mlp.fc1",
    ]


@pytest.mark.parametrize(
    ("blocks", "stages", "where", "words"),
    [
        ("last:13", "all", "", ["last:13", "12 blocks"]),
        ("last:0", "all", "", ["last:0", "1 to 12"]),
        ("last:120%", "all", "", ["last:120%", "last:66%"]),
        ("0,12", "all", "", ["block 12", "0 to 11"]),
        ("some", "all", "", ["some", "last:66%"]),
        ("all", "last:4", "", ["3 stages"]),
        ("first:1", "last:1", "", ["blocks=first:1", "stages=last:1"]),
        ("all", "all", "*.q_proj", ["*.q_proj", "blocks.0.attn.qkv"]),
    ],
)
def test_an_empty_selection_is_one_line_that_names_what_exists(
    blocks: str, stages: str, where: str, words: list[str]
) -> None:
    with pytest.raises(AdapterError) as caught:
        select(_sites(), blocks, stages, where)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_model_without_blocks_says_so() -> None:
    with pytest.raises(AdapterError, match="blocks=last:1"):
        select([Site("fc", nn.Linear(2, 2), "linear", "NLC", 2)], blocks="last:1")
    with pytest.raises(AdapterError, match="no place"):
        select([])


class _Padded(nn.Conv2d):
    """A user-defined convolution."""


def test_a_type_includes_its_subclasses_and_overrides_the_methods_own_places() -> None:
    def made() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 4, 3), _Padded(4, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))

    assert attach(made(), LoRA(types="Conv2d")).sites == ("0", "1")
    assert attach(made(), LoRA(types="_Padded, Linear")).sites == ("1", "4")
    assert attach(made(), LoRA(types="Conv2d", where="!0")).sites == ("1",)
    assert attach(made(), NormTuning(types="BatchNorm2d")).sites == ("2",)
    with pytest.raises(AdapterError, match=r"types=LayerNorm; there are Conv2d, _Padded, BatchNorm2d, Linear"):
        attach(made(), LoRA(types="LayerNorm"))
    with pytest.raises(AdapterError, match=r"ConvAdapter .* 4: "):
        attach(made(), ConvAdapter(types="Conv2d,Linear"))


@given(st.integers(1, 12), st.integers(1, 12))
def test_first_and_last_partition_the_blocks(total: int, count: int) -> None:
    if count >= total:
        return
    sites = _sites(total)
    first = {site.block for site in select(sites, f"first:{count}")}
    last = {site.block for site in select(sites, f"last:{total - count}")}
    assert first | last == set(range(total))
    assert not first & last
