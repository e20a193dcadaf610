"""`Site`: a place in a model where an adapter layer can be attached, as the adapter sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

SLOT = "visionadapt_adapters"
"""Name of the child of a module that holds the adapter layers there."""

Kind = Literal["block", "linear", "conv", "norm", "attention"]
Layout = Literal["NLC", "NHWC", "NCHW"]


@dataclass(frozen=True)
class Site:
    """One place where an adapter layer can be attached.

    Attributes:
        name: dotted path of `module` in its model, such as `blocks.3.attn.qkv`.
        module: the module itself. Its output has `layout` and `dim` channels.
        kind: kind of place; a `block` is the family's finest residual unit.
        layout: order of the output's axes: tokens `NLC`, channels-last maps `NHWC`, channels-first maps `NCHW`.
        dim: number of output channels.
        block: index of the block that is or contains `module`; None outside of all blocks (stem, final norm).
        stage: index of the stage that the block belongs to; None outside of all blocks.
        prefix_tokens: number of leading tokens that are not patches (class and register tokens); 0 for maps.
        rows: for a fused weight, the output rows of each part, such as `{"q": slice(0, 192), …}`.
        called: False where the parent never calls `module` but reads its weight (`F.linear(x, self.qkv.weight)`):
            a hook would be bypassed, so the weight itself has to be parametrised.
        effective_weight: function from the module to the weight used in its forward pass (such as a standardised one);
            None for `module.weight`.
        convolve: for a convolution, `(module, x, weight) -> Tensor`: the module's own padding, stride, dilation and
            groups with another weight and no bias; None for the behaviour of `nn.Conv2d`.
    """

    name: str
    module: nn.Module
    kind: Kind
    layout: Layout
    dim: int
    block: int | None = None
    stage: int | None = None
    prefix_tokens: int = 0
    rows: Mapping[str, slice] = field(default_factory=dict)
    called: bool = True
    effective_weight: Callable[[nn.Module], Tensor] | None = None
    convolve: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None


@runtime_checkable
class KnowsSites(Protocol):
    """A model that knows its own sites, as a backbone does: `segments` tells it from others that have a `sites`."""

    @property
    def segments(self) -> tuple[object, ...]:
        """The parts between adjacent cuts."""

    def sites(self) -> list[Site]:
        """Return every site where an adapter can be attached, in the model's order."""
