"""`probe` finds adapters that are bypassed, and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from visionadapt.adapters import Bottleneck, LoRA, attach, probe, state, switch
from visionadapt.errors import AdapterError

from .networks import pixels, vit


class Bypassing(nn.Module):
    """Two linear layers, of which the second is left out in some modes."""

    def __init__(self, skip_in: str) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.skip_in = skip_in

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skipped = {
            "always": True,
            "inference": torch.is_inference_mode_enabled(),
            "train": self.first.visionadapt_adapters.training,
            "never": False,
        }[self.skip_in]
        return x if skipped else self.second(x)


@pytest.mark.parametrize(
    ("skip_in", "words"), [("always", "train mode"), ("inference", "inference mode"), ("train", "train mode")]
)
def test_a_bypassed_adapter_is_named(skip_in: str, words: str) -> None:
    model = Bypassing(skip_in)
    attach(model, LoRA(rank=2), where="first,second")
    with pytest.raises(AdapterError, match=words) as caught:
        probe(model, torch.randn(2, 4))
    assert "second (default)" in str(caught.value)
    assert "first" not in str(caught.value)


def test_nothing_is_reached_where_the_last_layer_is_dead() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    nn.init.constant_(model[0].bias, -1e6)
    attach(model, LoRA(rank=2), where="0")
    with pytest.raises(AdapterError, match=r"train mode.* 0 \(default\)"):
        probe(model, torch.randn(2, 4))


def test_the_probe_leaves_no_trace() -> None:
    model = vit()
    attach(model, Bottleneck(rank=2, dropout=0.5))
    model.train()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert probe(model, pixels()) == 4
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert state(model)


def test_a_model_without_active_adapters_or_a_finite_output_is_refused() -> None:
    model = vit()
    with pytest.raises(AdapterError, match="attach one"):
        probe(model, pixels())
    attach(model, Bottleneck(rank=2))
    with pytest.raises(AdapterError, match=r"not finite|train mode"):
        probe(model, pixels() * float("nan"))
    switch(model)
    with pytest.raises(AdapterError, match="attach one"):
        probe(model, pixels())
