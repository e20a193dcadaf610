"""Drop-path for adapters: their own, apart from the backbone's, which stays off."""

from __future__ import annotations

from torch import Tensor, nn

from visionadapt.system import noise


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Set x [N, …] to zero for a share `rate` of the samples and scale the others by 1 / (1 - rate).

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. Outside of training, x itself.
    """
    if rate == 0.0 or not training:
        return x
    kept = noise.kept(x, rate, (x.shape[0],) + (1,) * (x.dim() - 1))
    return x * (kept / (1.0 - rate))


class DropPath(nn.Module):
    """`drop_path` as a module with a fixed rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.rate, self.training)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
