"""One shape for every backbone: stem → blocks → finish, cut anywhere in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from visionadapt.core.sites import Layout

Arguments = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Block:
    """A family's finest residual unit.

    Attributes:
        module: the unit itself; it is always called, so that its forward hooks fire.
        stage: index of the group of blocks that it belongs to.
        before: modules that run before the unit and belong to it, such as the downsampling between two stages.
        layout: order of the axes of the unit's output; None for the anatomy's.
        prefix_tokens: number of leading tokens of its output that are not patches, with a layout of its own.
    """

    module: nn.Module
    stage: int
    before: tuple[nn.Module, ...] = ()
    layout: Layout | None = None
    prefix_tokens: int = 0


@dataclass(frozen=True)
class Anatomy:
    """The parts of a family's forward.

    Attributes:
        stem: normalised pixels [B, 3, H, W] → input of the first block.
        blocks: the residual units in order.
        finish: output of the last block → pooled features [B, D].
        layout: order of the axes of the blocks' outputs.
        prefix_tokens: number of leading tokens that are not patches.
        block_arguments: computes further arguments of the blocks that are the same for every image (rotary embeddings,
            a shared position bias), one mapping per block; None where there are none.
        num_features: D, where it was measured; None for what the model declares.
        undivided: why the model is one block, whose forward cannot be divided; empty where it is divided.
    """

    stem: Callable[[Tensor], Tensor]
    blocks: tuple[Block, ...]
    finish: Callable[[Tensor], Tensor]
    layout: Layout
    prefix_tokens: int = 0
    block_arguments: Callable[[], Arguments] | None = None
    num_features: int | None = None
    undivided: str = ""

    @property
    def known(self) -> bool:
        """Whether the model is divided."""
        return not self.undivided


@dataclass(frozen=True)
class Segment:
    """The part of a backbone between two adjacent cuts.

    Attributes:
        name: `stem`, `block 0`, …, `finish`.
        block: index of its block; None for stem and finish.
        stage: index of its block's stage; None for stem and finish.
        parts: the functions that it applies, in order.
    """

    name: str
    block: int | None
    stage: int | None
    parts: tuple[Callable[..., Tensor], ...]

    def __call__(self, x: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """Apply the parts to `x`; the last one also gets `arguments`."""
        for part in self.parts[:-1]:
            x = part(x)
        return self.parts[-1](x, **arguments)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode within the context, so that a measurement changes no statistics."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def segments(anatomy: Anatomy) -> tuple[Segment, ...]:
    """Return the segments: stem, one per block, finish."""
    blocks = (
        Segment(f"block {index}", index, block.stage, (*block.before, block.module))
        for index, block in enumerate(anatomy.blocks)
    )
    return (
        Segment("stem", None, None, (anatomy.stem,)),
        *blocks,
        Segment("finish", None, None, (anatomy.finish,)),
    )
