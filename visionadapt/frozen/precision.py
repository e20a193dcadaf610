"""The context in which a backbone computes in a number format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from visionadapt.frozen.gradients import QuickGradients


@contextmanager
def computing_in(precision: str, device: str, *, twice: bool = False) -> Iterator[None]:
    """Run modules in a number format: torch's autocast, with quick gradients on a CPU.

    `float32` changes no format. `twice` says that the backward pass recomputes them outside of this context and needs
    the same tensors.
    """
    kind, dtype = torch.device(device).type, None if precision == "float32" else getattr(torch, precision)
    quick = QuickGradients() if kind == "cpu" and torch.is_grad_enabled() and not twice else nullcontext()
    with torch.autocast(kind, dtype, enabled=dtype is not None), quick:
        yield
