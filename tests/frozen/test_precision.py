"""What computes in a 16-bit format on a CPU gives what torch's autocast gives, but for a slow gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from visionadapt.frozen.precision import computing_in


class Formats(TorchDispatchMode):
    """Notes the number format of every convolution, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, torch.dtype]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name.startswith("convolution"):
            self.seen.append((name, args[0].dtype))
        return func(*args, **(kwargs or {}))


def gradient(model: nn.Module, x: Tensor, precision: str, *, twice: bool = False) -> tuple[Tensor, Tensor, Formats]:
    """Output, gradient by x, and the formats that the convolutions computed in."""
    x = x.clone().requires_grad_()
    with Formats() as formats:
        with computing_in(precision, "cpu", twice=twice):
            y = model(x)
        (found,) = torch.autograd.grad(y.float().square().sum(), x)
    return y.detach(), found, formats


DEPTHWISE = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
OTHERS = {
    "dense": nn.Conv2d(6, 6, 3, stride=2),
    "depthwise without a stride": nn.Conv2d(6, 6, 3, groups=6),
    "of one channel": nn.Conv2d(1, 6, 3, stride=2),
}


def pixels(channels: int = 6) -> Tensor:
    return torch.randn(2, channels, 9, 9, generator=torch.Generator().manual_seed(0))


def test_the_gradient_of_a_strided_depthwise_weight_is_taken_in_float32() -> None:
    exact = gradient(DEPTHWISE, pixels(), "float32")
    y, found, formats = gradient(DEPTHWISE, pixels(), "bfloat16")
    assert y.dtype == torch.bfloat16
    assert {dtype for _, dtype in formats.seen} == {torch.float32}
    assert torch.equal(y, exact[0].to(torch.bfloat16))
    torch.testing.assert_close(found, exact[1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_convolution_computes_as_autocast_says(name: str) -> None:
    model = OTHERS[name]
    _, _, formats = gradient(model, pixels(model.in_channels), "bfloat16")
    assert {dtype for _, dtype in formats.seen} == {torch.bfloat16}


def test_without_a_gradient_or_twice_nothing_is_changed() -> None:
    with computing_in("bfloat16", "cpu"), Formats() as formats:
        DEPTHWISE(pixels())
    again = gradient(DEPTHWISE, pixels(), "bfloat16", twice=True)[2]
    assert {dtype for _, dtype in [*formats.seen, *again.seen]} == {torch.bfloat16}


def test_float32_is_left_alone_inside_of_another_context() -> None:
    with torch.autocast("cpu", torch.bfloat16), computing_in("float32", "cpu"):
        assert DEPTHWISE(pixels()).dtype == torch.float32
