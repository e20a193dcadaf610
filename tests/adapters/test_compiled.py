"""Models that `torch.compile` has compiled before an adapter is attached, switched or detached."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from visionadapt.adapters import AdapterSettings, Bottleneck, LoRA, RepAdapter, attach, detach, switch

from .networks import randomise


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x).relu())
        return x + y + y.mean(1, keepdim=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.slow
@pytest.mark.parametrize("method", [Bottleneck(rank=2), RepAdapter(rank=2), LoRA(rank=2)])
@torch.no_grad()
def test_compiled_code_follows_the_adapters(method: AdapterSettings) -> None:
    model, twin = Net().requires_grad_(False).eval(), Net().requires_grad_(False).eval()
    call, x = torch.compile(model, backend="eager"), torch.randn(2, 5, 8)
    steps: list[Callable[[nn.Module], None]] = [
        lambda net: None,
        lambda net: attached(net, method, "news"),
        lambda net: attached(net, Bottleneck(rank=2, blocks="last:1"), "mail"),
        lambda net: switch(net, "mail"),
        lambda net: switch(net),
        lambda net: switch(net, "mail", "news"),
        lambda net: detach(net, "news"),
        lambda net: detach(net),
    ]
    outputs = []
    for step in steps:
        step(model)
        step(twin)
        outputs.append(twin(x))
        torch.testing.assert_close(call(x), outputs[-1])
    plain, news, both, mail, off, *_ = outputs
    assert torch.equal(plain, off)
    assert len({tuple(y.flatten().tolist()) for y in (plain, news, both, mail)}) == 4


def attached(model: nn.Module, method: AdapterSettings, name: str) -> None:
    attach(model, method, name=name)
    randomise(model)
