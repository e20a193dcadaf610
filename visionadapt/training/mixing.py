"""Mixup and CutMix: mix each image of a batch with another one at the cut, and their losses in the same shares."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from visionadapt.backbones.backbone import Backbone
from visionadapt.core.settings import TrainingSettings
from visionadapt.core.sites import Layout
from visionadapt.errors import UsageError
from visionadapt.frozen.plan import Plan


@dataclass(frozen=True)
class Grid:
    """Where the positions of an image lie in the tensor at a cut: `height` × `width` of them.

    Attributes:
        layout: order of the tensor's axes.
        height, width: number of positions.
        prefix_tokens: leading tokens that are not positions.
    """

    layout: Layout
    height: int
    width: int
    prefix_tokens: int = 0

    @property
    def positions(self) -> int:
        """The number of positions."""
        return self.height * self.width


@dataclass(frozen=True)
class Mix:
    """How each image of one batch is mixed with its partner.

    Attributes:
        share: λ in [0, 1], the image's own share of the loss.
        box: top, bottom, left and right of the positions that are the partner's; None where all are mixed.
    """

    share: float
    box: tuple[int, int, int, int] | None = None

    def apply(self, own: Mapping[str, Tensor], other: Mapping[str, Tensor], grid: Grid | None) -> dict[str, Tensor]:
        """Mix the named tensors [B, …] of B images with those of their partners; `grid` is needed with a box.

        Tensors other than `x` have no positions: they are mixed in the same shares.
        """
        mixed = {name: self._weighed(tensor, other[name]) for name, tensor in own.items()}
        if self.box is not None:
            assert grid is not None
            mixed["x"] = torch.where(_inside(self.box, grid, own["x"]), other["x"], own["x"])
        return mixed

    def _weighed(self, own: Tensor, other: Tensor) -> Tensor:
        return (own.float() * self.share + other.float() * (1 - self.share)).to(own.dtype)


@dataclass(frozen=True)
class Mixer:
    """Draws how the images of a batch are mixed.

    Zhang et al., "mixup", ICLR 2018: x̃ = λ x + (1 − λ) x′ with λ ~ Beta(α, α), at a hidden layer as in Verma et al.,
    "Manifold Mixup", ICML 2019. Yun et al., "CutMix", ICCV 2019: a box with √(1 − λ) of each side comes from the other
    image; what lies outside of the image is cut off, and λ becomes the share of the rest. With both, each batch has
    one of them, with equal probability.

    Args:
        mixup: α of mixup; 0 for none.
        cutmix: α of CutMix; 0 for none.
        grid: the positions at the cut; None where there are none, which CutMix needs.
    """

    mixup: float
    cutmix: float
    grid: Grid | None = None

    def draw(self, seed: int) -> Mix:
        """Draw how a batch is mixed; the same seed gives the same result on every machine."""
        generator = random.Random(seed)
        cut = generator.random() < 0.5 if self.mixup and self.cutmix else bool(self.cutmix)
        alpha = self.cutmix if cut else self.mixup
        share = generator.betavariate(alpha, alpha)
        if not cut or self.grid is None:
            return Mix(share)
        box = _box(share, self.grid, generator.randrange(self.grid.height), generator.randrange(self.grid.width))
        top, bottom, left, right = box
        return Mix(1 - (bottom - top) * (right - left) / self.grid.positions, box)


def mixer_for(backbone: Backbone, settings: TrainingSettings, plan: Plan) -> Mixer | None:
    """Return what mixes the batches of a run; None where the settings ask for nothing.

    Raises:
        UsageError: the tensors at the plan's cut have no positions to cut a box from.
    """
    if not settings.mixup and not settings.cutmix:
        return None
    grid = _grid_at(backbone, plan.cut) if settings.cutmix else None
    if settings.cutmix and grid is None:
        raise UsageError(
            f"--cutmix: what {backbone.name} computes before its trained layers is no map to cut a box from; "
            "give --mixup, or adapter layers in more blocks"
        )
    return Mixer(settings.mixup, settings.cutmix, grid)


def _grid_at(backbone: Backbone, cut: int) -> Grid | None:
    """Return the positions of the tensor `x` at a cut; None where they are not known."""
    anatomy = backbone.anatomy
    if cut == 0:
        return Grid("NCHW", backbone.config.image_size, backbone.config.image_size)
    if cut >= len(backbone.segments) or not anatomy.known:
        return None
    before = anatomy.blocks[cut - 2] if cut > 1 else None
    if before is None and anatomy.blocks[0].layout is not None:  # of the stem's output, nothing is known
        return None
    own = before is not None and before.layout is not None
    layout = before.layout if before is not None and before.layout is not None else anatomy.layout
    prefix = before.prefix_tokens if before is not None and own else anatomy.prefix_tokens
    shape = backbone.cut_shapes()[cut]["x"]
    if len(shape) == 3 and layout != "NLC":
        height, width = shape[1:] if layout == "NCHW" else shape[:2]
        return Grid(layout, height, width)
    side = math.isqrt(max(shape[0] - prefix, 0))
    if len(shape) != 2 or layout != "NLC" or side**2 != shape[0] - prefix or hasattr(backbone.model, "unroll"):
        return None
    return Grid(layout, side, side, prefix)


def _box(share: float, grid: Grid, row: int, column: int) -> tuple[int, int, int, int]:
    """Return the box around a position that leaves about this share of the grid: top, bottom, left, right."""
    cut = math.sqrt(1 - share)
    high, wide = int(grid.height * cut), int(grid.width * cut)
    return (
        max(row - high // 2, 0),
        min(row + (high + 1) // 2, grid.height),
        max(column - wide // 2, 0),
        min(column + (wide + 1) // 2, grid.width),
    )


def _inside(box: tuple[int, int, int, int], grid: Grid, x: Tensor) -> Tensor:
    """Return which positions of `x` lie in a box: bool, of a shape that broadcasts to `x`."""
    top, bottom, left, right = box
    inside = torch.zeros(grid.height, grid.width, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    if grid.layout == "NLC":
        tokens = torch.cat([torch.zeros(grid.prefix_tokens, dtype=torch.bool), inside.flatten()])
        return tokens[None, :, None].to(x.device, non_blocking=True)
    shaped = inside[None, None] if grid.layout == "NCHW" else inside[None, :, :, None]
    return shaped.to(x.device, non_blocking=True)
