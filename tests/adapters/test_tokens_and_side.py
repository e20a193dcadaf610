"""Visual prompts against explicit tokens; the side network's equation and its activation memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionadapt.adapters import VPT, Bottleneck, FullFineTuning, SideNetwork, attach
from visionadapt.errors import AdapterError

from .memory import saved_bytes
from .networks import pixels, randomise, sites_of, vit


@pytest.mark.parametrize("deep", [False, True])
def test_prompts_follow_the_class_token(deep: bool) -> None:
    model, plain = vit(depth=3), vit(depth=3)
    done = attach(model, VPT(tokens=2, deep=deep, blocks="last:2"), sites=sites_of(model))
    assert done.trainable == 2 * 24 * (2 if deep else 1)
    bound = (6 / (3 * 16**2 + 24)) ** 0.5
    prompts = [block.visionadapt_adapters["default"].prompts for block in model.blocks[1:]]
    assert prompts[0].abs().max() <= bound
    assert prompts[0].std().item() == pytest.approx(bound / 3**0.5, rel=0.3)
    x = torch.randn(2, 5, 24)

    def opened(x: Tensor, prompts: Tensor) -> Tensor:
        return torch.cat([x[:, :1], prompts.expand(2, -1, -1), x[:, 1:]], dim=1)

    def closed(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], x[:, 3:]], dim=1)

    expected = plain.blocks[1](opened(plain.blocks[0](x), prompts[0]))
    expected = plain.blocks[2](opened(closed(expected), prompts[1]) if deep else expected)
    torch.testing.assert_close(model.blocks(x), closed(expected))


def test_a_ladder_of_two_rungs_follows_its_equation() -> None:
    model, plain = vit(depth=3), vit(depth=3)
    done = attach(model, SideNetwork(reduction=8, blocks="last:2"), sites=sites_of(model))
    width, dim = 3, 24
    rung = dim * width + width + 2 * width**2 + 4 * width
    assert done.trainable == 2 * rung + 1 + width * dim + dim
    randomise(model)
    first, second = (block.visionadapt_adapters["default"] for block in model.blocks[1:])
    x = torch.randn(2, 5, 24)
    h1 = plain.blocks[1](plain.blocks[0](x))
    h2 = plain.blocks[2](h1)

    def rest(layer: nn.Module, state: Tensor) -> Tensor:
        normed = F.layer_norm(state, (3,), layer.norm.weight, layer.norm.bias)
        return state + layer.out(F.gelu(layer.hidden(normed)))

    state = rest(first, first.down(h1))
    gate = second.gate.sigmoid()
    state = rest(second, gate * state + (1 - gate) * second.down(h2))
    torch.testing.assert_close(model.blocks(x), h2 + second.up(state))
    assert first.passed is second.passed
    assert first.passed.state is None


@pytest.mark.slow
def test_the_side_network_needs_at_most_a_tenth_of_the_activations() -> None:
    def kept(settings: object) -> int:
        model = vit(depth=12, width=64, size=32)
        attach(model, settings, sites=sites_of(model))
        return saved_bytes(model.train(), pixels(count=4, size=32))

    full = kept(FullFineTuning())
    assert kept(SideNetwork()) <= full / 10
    assert kept(Bottleneck(rank=2, blocks="last:4")) < full / 2


def test_refusals() -> None:
    model = vit()
    for settings in (VPT(), SideNetwork()):
        with pytest.raises(AdapterError, match=rf"{type(settings).__name__} .* blocks\.0\.attn\.qkv: .* whole block"):
            attach(model, settings, where="*.qkv")
    for wrong in (lambda: VPT(tokens=0), lambda: VPT(dropout=1.0), lambda: SideNetwork(reduction=0)):
        with pytest.raises(AdapterError):
            wrong()
