"""Drop-path of adapter layers, independent of the backbone's own, which stays off."""

from __future__ import annotations

from torch import Tensor, nn

from visionadapt.system import noise


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero x [N, …] for a share `rate` of the samples and scale the others by 1 / (1 - rate).

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. Outside of training, return x.
    """
    if rate == 0.0 or not training:
        return x
    kept = noise.kept(x, rate, (x.shape[0],) + (1,) * (x.dim() - 1))
    return x * (kept / (1.0 - rate))


class DropPath(nn.Module):
    """`drop_path` as a module with a fixed rate in [0, 1)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.rate, self.training)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
