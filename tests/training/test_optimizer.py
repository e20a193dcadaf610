"""Groups, schedule and saved state of the optimiser."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import visionadapt as va
from visionadapt.adapters import Bottleneck, FullFineTuning
from visionadapt.core.settings import TrainingSettings
from visionadapt.training.optimizer import load_optimizer_tensors, optimizer_tensors, parameter_groups, schedule

from ..conftest import SMALL_BACKBONE

SETTINGS = TrainingSettings(learning_rate=0.01, head_learning_rate=0.002, weight_decay=0.1)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Conv2d(2, 3, 1)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(3, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.scale * self.adapter(pixels).mean((2, 3)))


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def small(adapter: str | None) -> va.Classifier:
    return va.classifier(SMALL_BACKBONE, ("a", "b"), adapter, weights="none", image_size=64)


def test_every_parameter_is_in_one_group_with_its_rate_and_decay() -> None:
    model = small("bottleneck(rank=2, blocks=last:2)")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, SETTINGS, 10)
    found = {names[id(member)]: (g["peak"], g["weight_decay"]) for g in groups for member in g["params"]}
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(found)
    for name, (peak, decay) in found.items():
        assert peak == (0.002 if name.startswith("head.") else 0.01), name
        assert decay == (0.1 if name.endswith("weight") else 0.0), name


def test_given_rates_hold_for_any_number_of_images() -> None:
    model = small("bottleneck(rank=2, blocks=last:2)")
    few, many = (parameter_groups(model, SETTINGS, images) for images in (10, 100_000))
    assert [group["peak"] for group in many] == [group["peak"] for group in few]


def test_a_probe_trains_the_head_alone() -> None:
    groups = parameter_groups(small(None), SETTINGS, 10)
    assert [(len(group["params"]), group["peak"]) for group in groups] == [(1, 0.002), (1, 0.002)]


def test_a_method_has_a_learning_rate_and_a_layer_decay_of_its_own() -> None:
    settings = TrainingSettings(head_learning_rate=1.0)
    bottleneck = {group["peak"] for group in parameter_groups(small("bottleneck"), settings, 10)}
    assert bottleneck == {Bottleneck.learning_rate, settings.head_learning_rate}
    many = {group["peak"] for group in parameter_groups(small("bottleneck"), settings, 4 * 600)}
    assert many == {Bottleneck.learning_rate / 2, settings.head_learning_rate}
    model = small("full(layer_decay=0.5)")
    layers = {group["peak"] for group in parameter_groups(model, settings, 10)} - {settings.head_learning_rate}
    blocks = len(model.backbone.anatomy.blocks)
    assert sorted(layers) == pytest.approx([FullFineTuning.learning_rate * 0.5**k for k in range(blocks + 1, -1, -1)])


@pytest.mark.parametrize(
    ("steps", "warmup", "factors"),
    [
        (4, 0.0, [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        (4, 0.5, [0.5, 1.0, 1.0, 0.5]),
        (6, 0.5, [1 / 3, 2 / 3, 1.0, 1.0, 0.75, 0.25]),
        (1, 0.0, [1.0]),
        (1, 0.9, [1.0]),
        (2, 0.1, [1.0, 0.5]),
    ],
)
def test_the_schedule_by_hand(steps: int, warmup: float, factors: list[float]) -> None:
    assert [schedule(step, steps, warmup) for step in range(steps)] == pytest.approx(factors)


@given(st.integers(1, 300), st.floats(0, 0.999))
def test_the_schedule_rises_to_one_and_falls(steps: int, warmup: float) -> None:
    factors = [schedule(step, steps, warmup) for step in range(steps)]
    rising = round(warmup * steps)
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1.0
    assert factors[:rising] == sorted(factors[:rising])
    assert factors[rising:] == sorted(factors[rising:], reverse=True)


def test_the_cosine_is_torch_s() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert schedule(step, 20, 0.0) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for number in range(first, last):
        optimizer.zero_grad()
        pixels = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(number))
        model(pixels).square().sum().backward()
        optimizer.step()


def test_a_resumed_optimiser_takes_the_same_steps_bit_for_bit() -> None:
    torch.manual_seed(0)
    whole = Network()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.01)
    steps(whole, optimizer, 0, 3)
    weights = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    saved = optimizer_tensors(optimizer, parameters_of(whole))
    steps(whole, optimizer, 3, 6)

    resumed = Network()
    resumed.load_state_dict(weights)
    again = torch.optim.AdamW(resumed.parameters(), lr=0.01)
    load_optimizer_tensors(again, parameters_of(resumed), saved)
    steps(resumed, again, 3, 6)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert set(saved) == {
        f"{name}/{moment}" for name in parameters_of(whole) for moment in ("step", "exp_avg", "exp_avg_sq")
    }


def test_saved_state_is_a_copy() -> None:
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    assert optimizer_tensors(optimizer, parameters_of(model)) == {}
    steps(model, optimizer, 0, 1)
    saved = optimizer_tensors(optimizer, parameters_of(model))
    before = {key: tensor.clone() for key, tensor in saved.items()}
    steps(model, optimizer, 1, 2)
    assert all(torch.equal(saved[key], before[key]) for key in saved)
    load_optimizer_tensors(optimizer, parameters_of(model), saved)
    steps(model, optimizer, 2, 3)
    assert all(torch.equal(saved[key], before[key]) for key in saved)
