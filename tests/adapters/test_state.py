"""Saved adapter weights: keys, round trip, and what loading refuses."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from visionadapt.adapters import Bottleneck, FullFineTuning, LoRA, attach, load_state, state
from visionadapt.errors import AdapterError

from .networks import pixels, randomise, sites_of, vit

pytestmark = pytest.mark.slow


def test_keys_do_not_depend_on_what_the_model_is_wrapped_in() -> None:
    model = vit(depth=1)
    attach(model, LoRA(rank=2), sites=sites_of(model), name="mine")
    keys = ["down.q", "down.v", "up.q", "up.v"]
    assert list(state(model)) == [f"mine/blocks.0.attn.qkv/{key}" for key in keys]
    assert list(state(nn.Sequential(model), "mine")) == list(state(model))


def test_round_trip_through_bytes() -> None:
    model, other = vit(), vit()
    for target in (model, other):
        attach(target, Bottleneck(rank=2), name="a")
        attach(target, LoRA(rank=2), sites=sites_of(target), name="b")
    randomise(model)
    assert not torch.equal(model(pixels()), other(pixels()))
    load_state(other, load(save({key: value.contiguous() for key, value in state(model).items()})))
    assert torch.equal(model(pixels()), other(pixels()))


def test_one_adapter_can_be_loaded_alone() -> None:
    model, other = vit(), vit()
    for target, seed in ((model, 0), (other, 1)):
        attach(target, Bottleneck(rank=2), name="a", seed=seed)
        attach(target, Bottleneck(rank=3), name="b", seed=seed)
    kept = {key: value.clone() for key, value in state(other, "b").items()}
    load_state(other, state(model, "a"))
    assert all(torch.equal(value, state(model)[key]) for key, value in state(other, "a").items())
    assert all(torch.equal(value, kept[key]) for key, value in state(other, "b").items())


def test_differences_are_named_and_nothing_is_copied() -> None:
    model = vit(depth=2)
    attach(model, Bottleneck(rank=2))
    good = {key: value + 1 for key, value in state(model).items()}
    key = "default/blocks.0/down.bias"
    cases = {
        f"lacks {key}": {name: value for name, value in good.items() if name != key},
        "default/blocks.9/down.bias": {**good, "default/blocks.9/down.bias": good[key]},
        rf"{key} .*\[3\].*\[2\]": {**good, key: torch.zeros(3)},
        "empty": {},
    }
    before = {name: value.clone() for name, value in state(model).items()}
    for words, tensors in cases.items():
        with pytest.raises(AdapterError, match=words) as caught:
            load_state(model, tensors)
        assert "\n" not in str(caught.value)
        assert all(torch.equal(value, before[name]) for name, value in state(model).items())
    with pytest.raises(AdapterError, match="other"):
        state(model, "other")


def test_tensors_in_any_memory_order_and_tied_ones_can_be_written() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3))
    model[1].weight = model[0].weight
    attach(model, LoRA(rank=2), where="0", name="a")
    attach(model, FullFineTuning(), name="b")
    model.to(memory_format=torch.channels_last)
    written = load(save(state(model)))
    assert torch.equal(written["b/model/1.weight"], model[1].weight)
    load_state(model, written)
