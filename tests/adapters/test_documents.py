"""The documentation's snippet runs, and published counts hold on backbones as they are loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from visionadapt import adapters, backbones


def test_the_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "adapter-layers.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "docs/adapter-layers.md", "exec"), {})
    assert capsys.readouterr().out == "('layers.2.linear1', 'layers.3.linear1') 768\n"


def test_published_counts_on_vit_base() -> None:
    model = backbones.load("vit_base_patch16_224", weights="none")
    counts = {
        adapters.Bottleneck(rank=8): 165_984,
        adapters.AdaptFormer(rank=64): 1_189_632,
        adapters.SSF(): 205_824,
        adapters.LoRA(rank=8): 294_912,
    }
    for settings, count in counts.items():
        assert adapters.attach(model, settings, sites=model.sites()).trainable == count
        adapters.detach(model)
