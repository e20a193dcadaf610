"""Random noise for a batch that may be spread over processes: drawn for the complete batch, so that parts agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_PART: ContextVar[tuple[int, int, int] | None] = ContextVar("part", default=None)


@contextmanager
def part(start: int, stop: int, rows: int) -> Iterator[None]:
    """Within this context, samples are rows `start` to `stop` of a batch with `rows` rows.

    Processes that hold parts of one batch and share a seed then draw the same noise for each row as a single process
    that holds the complete batch.
    """
    token = _PART.set((start, stop, rows))
    try:
        yield
    finally:
        _PART.reset(token)


def seed(value: int, device: torch.device) -> None:
    """Seed the CPU and `device`; without a GPU, `torch.manual_seed` takes ten times as long."""
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(value)


def kept(x: Tensor, rate: float, shape: tuple[int, ...]) -> Tensor:
    """Return a mask [N, …] of `shape` with a share `rate` of zeros, otherwise ones, with the dtype and device of x.

    If this process holds part of a batch, N must be a multiple of its samples: one row each, or several (windows).
    """
    start, stop, rows = _PART.get() or (0, shape[0], shape[0])
    times = shape[0] // max(stop - start, 1)
    whole = torch.empty((rows * times, *shape[1:]), dtype=x.dtype, device=x.device).bernoulli_(1 - rate)
    return whole[start * times : stop * times]


def dropout(x: Tensor, rate: float, training: bool, shape: tuple[int, ...] | None = None) -> Tensor:
    """Set a share `rate` of the elements of x [N, …] to zero and scale the others by 1 / (1 − rate).

    Srivastava et al., "Dropout", JMLR 2014. Outside of training, return x itself. Elements that a mask of `shape`
    (by default that of x) does not distinguish are set to zero together.
    """
    if rate == 0.0 or not training:
        return x
    if rate == 1.0:
        return x * 0.0
    return x * (kept(x, rate, shape or tuple(x.shape)) / (1 - rate))


class Dropout(nn.Dropout):
    """`dropout` as a module with the rate `p`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Dropout
        return dropout(input, self.p, self.training)


class DropPath(nn.Dropout):
    """`dropout` of complete samples: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Dropout
        return dropout(input, self.p, self.training, (input.shape[0],) + (1,) * (input.dim() - 1))
