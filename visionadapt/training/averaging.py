"""An exponential moving average of the trained weights (EMA), which is validated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_POWER = 2 / 3


class WeightAverage:
    """θ̄ ← d θ̄ + (1 − d) θ after each step: Polyak & Juditsky, 1992, with exponential weights.

    The decay d rises with the number of steps t before, as min(decay, 1 − (1 + t)^(−2/3)): the first weights, which are
    not trained, would otherwise count for long. So do timm's `ModelEmaV3` and others with `warmup`.

    Args:
        parameters: by name; the average begins at their values.
        decay: in (0, 1).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.tensors = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights."""
        decay = max(min(self.decay, 1 - (1 + self.steps) ** -_POWER), 0.0)
        self.steps += 1
        torch._foreach_lerp_(list(self.tensors.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model within this context, and then the weights again, bit for bit."""
        own = [parameter.detach().clone() for parameter in self.parameters.values()]
        self._put(self.tensors.values())
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, tensors: Iterable[Tensor]) -> None:
        for parameter, tensor in zip(self.parameters.values(), tensors, strict=True):
            parameter.copy_(tensor)

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Resume from the `tensors` and the `steps` of another one."""
        self.steps = steps
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
