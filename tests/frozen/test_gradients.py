"""What is computed for quicker gradients on a CPU is what torch computes."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from visionadapt.frozen.gradients import QuickGradients

SIZES = ((14, 14), (7, 9), (5, 5))
KERNELS = ((5, 5), (3, 3), (1, 1), (2, 3), (6, 4))
STRIDES = ((2, 2), (1, 2), (3, 2), (4, 4))
PADDINGS = ((0, 0), (1, 1), (2, 0), (3, 2))


def frozen_depthwise(channels: int, **given: object) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, groups=channels, **given).requires_grad_(False)  # type: ignore[arg-type]


def both(model: nn.Module, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Output and gradient by x of a random output gradient, from torch and within `QuickGradients`."""
    x = (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x).requires_grad_()
    usual = model(x)
    with QuickGradients():
        quick = model(x)
    towards = torch.randn(usual.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(usual)
    return tuple((y.detach(), torch.autograd.grad(y, x, towards)[0]) for y in (usual, quick))  # type: ignore[return-value]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gradient_of_a_strided_depthwise_convolution_is_that_of_torch(size: tuple[int, int]) -> None:
    for kernel, stride, padding in product(KERNELS, STRIDES, PADDINGS):
        if all(side + 2 * around >= taps for side, around, taps in zip(size, padding, kernel, strict=True)):
            model = frozen_depthwise(4, kernel_size=kernel, stride=stride, padding=padding).double()
            usual, quick = both(model, torch.randn(2, 4, *size, dtype=torch.float64))
            assert torch.equal(usual[0], quick[0])
            torch.testing.assert_close(quick[1], usual[1], rtol=0, atol=1e-12, msg=f"{kernel}, {stride}, {padding}")


@pytest.mark.parametrize("changed", [{"dilation": 2}, {"padding": "valid"}, {"bias": False}], ids=str)
def test_other_settings_give_what_torch_gives_too(changed: dict[str, object]) -> None:
    model = frozen_depthwise(4, kernel_size=3, stride=2, **changed).double()
    usual, quick = both(model, torch.randn(2, 4, 9, 9, dtype=torch.float64))
    torch.testing.assert_close(quick, usual, rtol=1e-5, atol=1e-6)


def test_several_filters_a_channel_give_what_torch_gives_too() -> None:
    model = nn.Conv2d(4, 8, 3, stride=2, groups=4).requires_grad_(False).double()
    usual, quick = both(model, torch.randn(2, 4, 9, 9, dtype=torch.float64))
    torch.testing.assert_close(quick, usual, rtol=1e-5, atol=1e-6)


def test_in_bfloat16_the_gradient_is_rounded_once() -> None:
    x = torch.randn(2, 6, 14, 14)
    model = frozen_depthwise(6, kernel_size=5, stride=2, padding=2).bfloat16()
    quick = both(model, x.bfloat16())[1][1].float()
    exact = both(model.double(), x.bfloat16().double())[0][1].float()
    torch.testing.assert_close(quick, exact, rtol=2**-8, atol=1e-3)


NORMS = {
    "plain": nn.BatchNorm2d(8),
    "without weights": nn.BatchNorm2d(8, affine=False, eps=0.1),
    "of vectors": nn.BatchNorm1d(8),
}


@pytest.mark.parametrize("name", NORMS)
def test_the_gradient_of_a_frozen_batch_norm_is_that_of_torch(name: str) -> None:
    model = NORMS[name].double()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
    x = torch.randn(4, 8, dtype=torch.float64) if name == "of vectors" else torch.randn(2, 8, 7, 7, dtype=torch.float64)
    usual, quick = both(model.requires_grad_(False).eval(), x)
    torch.testing.assert_close(quick, usual, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"track_running_stats": False}], ids=str)
def test_a_batch_norm_with_statistics_of_the_batch_is_left_to_torch(settings: dict[str, bool]) -> None:
    model = nn.BatchNorm2d(8, **settings).requires_grad_(False).double()  # type: ignore[arg-type]
    usual, quick = both(model, torch.randn(4, 8, 5, 5, dtype=torch.float64))
    assert torch.equal(usual[1], quick[1])


def test_a_batch_norm_that_is_trained_has_the_gradients_of_torch() -> None:
    model = nn.BatchNorm2d(8).eval().double()
    x, found = torch.randn(4, 8, 5, 5, dtype=torch.float64, requires_grad=True), []
    for context in (nullcontext(), QuickGradients()):
        with context:
            y = model(x)
        found.append(torch.autograd.grad(y.square().sum(), [x, *model.parameters()]))
    torch.testing.assert_close(found[1], found[0])


class Pooled(nn.Module):
    """Two uses of one map: pooled, and as it is."""

    def __init__(self, pool: nn.Module | None) -> None:
        super().__init__()
        self.pool = pool
        self.layouts: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(x)
        y.register_hook(lambda gradient: self.layouts.append(is_channels_last(gradient)))
        return (y.mean((2, 3), keepdim=True) if self.pool is None else self.pool(y)).square()


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pool", [None, nn.AdaptiveAvgPool2d(1)], ids=["mean", "module"])
def test_the_gradient_of_pooling_is_the_same_with_channels_last(pool: nn.Module | None) -> None:
    model = Pooled(pool)
    usual, quick = both(model, torch.randn(2, 8, 7, 7))
    assert torch.equal(usual[1], quick[1])
    assert model.layouts == [False, True]
