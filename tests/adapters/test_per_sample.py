"""A batch with several adapters equals each sample with its own adapter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from visionadapt.adapters import (
    AdaptFormer,
    BitFit,
    Bottleneck,
    LoRA,
    RepAdapter,
    SideNetwork,
    attach,
    mixed,
    names,
    state,
    switch,
)
from visionadapt.errors import AdapterError

from .families import run, subject


def _stirred(model: Any, *adapters: str) -> None:
    switch(model, *adapters)
    generator = torch.Generator().manual_seed(4)
    for tensor in state(model).values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)


@pytest.mark.parametrize("family", ["ViT", "Swin", "ResNet", "TransformerEncoder"])
def test_each_sample_is_exact(family: str) -> None:
    made = subject(family)
    for name, settings in {
        "low": LoRA(rank=2, where="*.qkv,*.fc1,*.conv?,*.linear1"),
        "narrow": Bottleneck(rank=2),
        "other": Bottleneck(rank=3, blocks="last:1"),
        "ladder": SideNetwork(),
        "front": RepAdapter(rank=2, where="*.fc1,*.conv2,*.linear1"),
    }.items():
        attach(made.model, settings, sites=made.sites, name=name)
    _stirred(made.model, *names(made.model))
    chosen = ["narrow", "low", None, "ladder", "low", "front", "other"]
    x = torch.randn(len(chosen), *made.inputs.shape[1:])
    alone = []
    for i, name in enumerate(chosen):
        switch(made.model, *[name] if name else [])
        alone.append(run(made.model, x[i : i + 1]))
    with mixed(made.model, chosen):
        together = run(made.model, x)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert len({round(output.sum().item(), 4) for output in run(made.model, x[:1].expand_as(x)).split(1)}) == 1


def test_methods_that_change_what_samples_share_are_refused() -> None:
    made = subject("ViT")
    attach(made.model, AdaptFormer(rank=2), sites=made.sites, name="a")
    attach(made.model, BitFit(), sites=made.sites, name="b")
    with pytest.raises(AdapterError, match="'b'"), mixed(made.model, ["a", "b"]):
        pass
    switch(made.model, "a")
    with pytest.raises(AdapterError, match="'c'"), mixed(made.model, ["a", "c"]):
        pass
    with mixed(made.model, ["a", None]):
        run(made.model, made.inputs)
