"""A batch with several adapters equals each sample with its own adapter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

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


@pytest.mark.parametrize("count", [1, 4])
def test_a_number_of_names_other_than_the_number_of_samples_is_refused(count: int) -> None:
    made = subject("ViT")
    attach(made.model, AdaptFormer(rank=2), sites=made.sites, name="a")
    with pytest.raises(AdapterError, match=str(count)), mixed(made.model, ["a", None, "a", "a"][:count]):
        run(made.model, made.inputs)


def test_one_name_for_all_samples_is_that_adapter_alone() -> None:
    made = subject("ViT")
    attach(made.model, BitFit(), sites=made.sites, name="b")
    _stirred(made.model, "b")
    expected = run(made.model, made.inputs)
    switch(made.model)
    with mixed(made.model, ["b", "b"]):
        assert torch.equal(run(made.model, made.inputs), expected)
    assert not torch.equal(run(made.model, made.inputs), expected)


class Positions(nn.Module):
    """Adds biases that a layer computes from 4 coordinates, and a layer on windows in either order."""

    def __init__(self, windows_first: bool) -> None:
        super().__init__()
        self.windows_first = windows_first
        self.bias = nn.Linear(2, 3)
        self.body = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.bias(torch.eye(4, 2))
        if not self.windows_first:
            return self.body(x.flatten(0, 1)).view_as(x)
        return self.body(x.transpose(0, 1).flatten(0, 1)).view(4, -1, 3).transpose(0, 1)


@pytest.mark.parametrize("windows_first", [False, True])
@pytest.mark.parametrize("where", ["bias", "body"])
def test_what_samples_share_is_refused(where: str, windows_first: bool) -> None:
    model = Positions(windows_first)
    for name in "ab":
        attach(model, LoRA(rank=2), where=where, name=name)
    _stirred(model, "a", "b")
    x = torch.randn(2, 4, 3)
    if where == "bias" or windows_first:
        with pytest.raises(AdapterError, match=where), mixed(model, ["a", "b"]):
            model(x)
        return
    with mixed(model, ["a", "b"]):
        together = model(x)
    for i, name in enumerate("ab"):
        switch(model, name)
        torch.testing.assert_close(together[i : i + 1], model(x[i : i + 1]), rtol=1e-5, atol=1e-6)
