"""Methods that train the model's own parameters, and the optimizer's parameter groups."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from visionadapt.adapters import (
    BitFit,
    FullFineTuning,
    LinearProbeFineTuning,
    NormTuning,
    PartialFineTuning,
    attach,
    detach,
    find_sites,
    frozen_in,
    merge,
    parameter_groups,
    state,
    switch,
    trainable,
)
from visionadapt.errors import AdapterError

from .networks import pixels, randomise, sites_of, vit


@pytest.mark.slow
def test_counts_on_vit_base() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=0)
        sites = sites_of(model)
        counts = {
            type(settings).__name__: sum(
                parameter.numel()
                for site in settings.own_places(sites)
                if not settings.refuse(site)
                for parameter in settings.build(site).parameters()
            )
            for settings in (BitFit(), NormTuning())
        }
    # a block's biases: norms 2·768, qkv 2304, projection 768, MLP 3072 + 768; patch embedding and last norm 768 each
    assert counts == {"BitFit": 12 * (2 * 768 + 2304 + 768 + 3072 + 768) + 2 * 768, "NormTuning": 25 * 2 * 768}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            NormTuning(blocks="0"),
            ["blocks.0.norm1.bias", "blocks.0.norm1.weight", "blocks.0.norm2.bias", "blocks.0.norm2.weight"],
        ),
        (BitFit(where="blocks.1.mlp.*"), ["blocks.1.mlp.fc1.bias", "blocks.1.mlp.fc2.bias"]),
    ],
)
def test_the_trained_parameters_keep_the_models_own_names(settings: object, expected: list[str]) -> None:
    model = vit(depth=2)
    attach(model, settings)
    assert sorted(trainable(model)) == expected


def test_partial_fine_tuning_trains_whole_blocks_and_wakes_their_dropout() -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, num_heads=2, depth=3, proj_drop_rate=0.1
    )
    attach(model, PartialFineTuning())
    assert sorted(trainable(model)) == sorted(
        f"blocks.{index}.{name}" for index in (1, 2) for name, _ in vit(depth=1).blocks[0].named_parameters()
    )
    model.train()
    assert [model.blocks[index].mlp.drop1.training for index in range(3)] == [False, True, True]
    assert not model.norm.training


def test_full_fine_tuning_trains_everything_but_moves_no_statistics() -> None:
    model = timm.create_model("resnet10t", num_classes=3).train()
    names = [name for name, _ in model.named_parameters()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    attach(model, FullFineTuning())
    assert trainable(model) == names
    model.train()
    model(pixels(size=32)).square().sum().backward()
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers() if name in buffers)
    assert all(not module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.slow
def test_blocks_can_be_fine_tuned_after_a_probe() -> None:
    chosen, partial = vit(depth=3), vit(depth=3)
    attach(chosen, LinearProbeFineTuning(blocks="last:1"))
    attach(partial, PartialFineTuning(blocks="last:1"))
    assert trainable(chosen) == trainable(partial)
    assert all(name.startswith("blocks.2.") for name in trainable(chosen))


def test_a_parameter_under_two_names_stays_one() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    original = model[0].weight
    attach(model, FullFineTuning())
    assert model[0].weight is model[2].weight is not original
    detach(model)
    assert model[0].weight is model[2].weight is original


@pytest.mark.slow
def test_originals_survive_training_switching_copies_and_a_change_of_type() -> None:
    model, x = vit(depth=2), pixels()
    plain, original = model(x), model.blocks[0].norm1.weight
    bits = original.detach().clone()
    attach(model, NormTuning(), name="a")
    randomise(model)
    tuned = model(x)
    assert list(state(model, "a"))[:2] == ["a/blocks.0.norm1/weight", "a/blocks.0.norm1/bias"]
    switch(model)
    assert torch.equal(model(x), plain)
    assert model.blocks[0].norm1.weight is original
    switch(model, "a")
    assert torch.equal(model(x), tuned)
    twin = copy.deepcopy(model)
    detach(twin)
    assert torch.equal(twin(x), plain)
    assert torch.equal(merge(model)(x), tuned)
    model.double()
    detach(model)
    assert model.blocks[0].norm1.weight is original
    assert torch.equal(original, bits.double())


@pytest.mark.slow
def test_two_adapters_do_not_train_one_parameter_at_once() -> None:
    model, x = vit(depth=2), pixels()
    attach(model, NormTuning(), name="a")
    with pytest.raises(AdapterError, match=r"'a' and 'b' .*norm1\.weight"):
        attach(model, PartialFineTuning(blocks="last:1"), name="b")
    randomise(model)
    first = model(x)
    switch(model)
    attach(model, PartialFineTuning(blocks="last:1"), name="b")
    with pytest.raises(AdapterError, match=r"'[ab]' and '[ab]'"):
        switch(model, "a", "b")
    switch(model, "a")
    assert torch.equal(model(x), first)


def test_the_learning_rate_falls_towards_the_stem() -> None:
    model = vit(depth=2)
    attach(model, FullFineTuning())
    groups = parameter_groups(model, find_sites(model), 0.1, weight_decay=0.05, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates["head.weight"] == rates["norm.bias"] == pytest.approx(0.1)
    assert rates["blocks.1.attn.qkv.weight"] == pytest.approx(0.05)
    assert rates["blocks.0.norm1.weight"] == pytest.approx(0.025)
    assert rates["cls_token"] == rates["pos_embed"] == rates["patch_embed.proj.weight"] == pytest.approx(0.0125)
    decayed = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decayed["head.weight"] == 0.05
    assert decayed["head.bias"] == decayed["norm.weight"] == 0.0
    assert set(rates) == set(names.values())
    torch.optim.AdamW(groups)


def test_linear_probing_comes_first() -> None:
    settings = LinearProbeFineTuning(probe=0.5)
    assert [frozen_in(settings, epoch, 5) for epoch in range(5)] == [True, True, False, False, False]
    assert not frozen_in(FullFineTuning(), 0, 5)
    with pytest.raises(AdapterError, match="probe"):
        LinearProbeFineTuning(probe=1.0)
    with pytest.raises(AdapterError, match="layer_decay"):
        FullFineTuning(layer_decay=0.0)


class Drifting(nn.Module):
    """Norms whose buffers change in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
        self.second = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))
        self.third = nn.utils.spectral_norm(nn.Conv2d(8, 8, 3))
        self.last = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.third(self.second(self.first(x))))
        return y


def test_no_buffer_moves_in_fine_tuning() -> None:
    torch.manual_seed(0)
    model = Drifting()
    attach(model, FullFineTuning())
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimiser.step()
    assert [name for name, buffer in model.named_buffers() if not torch.equal(buffer, buffers[name])] == []
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
