"""The documentation's snippet runs, and published counts hold on backbones as they are loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from visionadapt import adapters, backbones


def test_the_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "adapter-layers.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "docs/reference/adapter-layers.md", "exec"), {})
    assert capsys.readouterr().out == "('layers.2.linear1', 'layers.3.linear1') 768\n"


@pytest.mark.slow
def test_counts_on_vit_base() -> None:
    """Published parameter counts; where there is none, the docstring's formula for ViT-B/16."""
    model = backbones.load("vit_base_patch16_224", weights="none")
    width, hidden, blocks, patch = 768, 3072, 12, 16
    attention, mlp = 4 * (width**2 + width), 2 * width * hidden + hidden + width
    block = attention + mlp + 4 * width
    outside = 3 * patch**2 * width + width + width + 197 * width + 2 * width
    narrow = width // 16
    rung = width * narrow + narrow + 2 * narrow**2 + 4 * narrow
    counts = {
        adapters.Bottleneck(rank=8): 165_984,
        adapters.Bottleneck(rank=8, placement="pfeiffer"): 165_984,
        adapters.Bottleneck(rank=8, placement="houlsby"): 2 * 165_984,
        adapters.AdaptFormer(rank=64): 1_189_632,
        adapters.SSF(): 205_824,
        adapters.LoRA(rank=8): 294_912,
        adapters.DoRA(rank=8): 294_912 + blocks * 2 * width,
        adapters.Convpass(rank=8): 2 * blocks * (2 * 8 * width + 8 + width + 9 * 8**2 + 8),
        adapters.RepAdapter(rank=8, groups=2): 2 * blocks * (8 * width + 8 * width // 2 + 8 + width),
        adapters.IA3(): blocks * (2 * width + hidden),
        adapters.VPT(tokens=10, deep=False): 10 * width,
        adapters.VPT(tokens=10): blocks * 10 * width,
        adapters.BitFit(): blocks * (2 * width + 3 * width + width + hidden + width) + 2 * width,
        adapters.NormTuning(): (2 * blocks + 1) * 2 * width,
        adapters.SideNetwork(reduction=16): blocks * rung + (blocks - 1) + narrow * width + width,
        adapters.PartialFineTuning(blocks="last:2"): 2 * block,
        adapters.FullFineTuning(): blocks * block + outside,
        adapters.LinearProbeFineTuning(): blocks * block + outside,
    }
    for settings, count in counts.items():
        assert adapters.attach(model, settings, sites=model.sites()).trainable == count, settings
        adapters.detach(model)
