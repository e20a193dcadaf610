"""Fine-tuning of whole blocks or of the whole model, at once or after a linear probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from visionadapt.adapters.placement import Placement, require
from visionadapt.adapters.sublayers import of_kind
from visionadapt.adapters.tuned_layer import TunedLayer, modules_below
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class PartialFineTuning(Placement):
    """Train the chosen blocks, with their own dropout and drop-path; norms keep their statistics.

    Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.

    Trainable parameters: those of the blocks.

    Attributes:
        layer_decay: factor in (0, 1] on the learning rate from one block to the previous one; see `parameter_groups`.
    """

    needs: ClassVar[str] = "blocks"
    learning_rate: ClassVar[float] = 3e-4

    blocks: str = "last:2"
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.layer_decay <= 1, f"layer_decay={self.layer_decay} must be above 0 and at most 1")

    def refuse(self, site: Site) -> str:
        return "" if _parameters(site.module) else "it has no parameters"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return the blocks, and modules that belong to one but are outside of it, such as a downsampling before it."""
        blocks = of_kind(sites, "block")
        inside = {id(module) for block in blocks for module in block.module.modules()}
        outside = [site for site in sites if site.block is not None and id(site.module) not in inside]
        return [site for site in sites if site in blocks or site in _outermost(outside)]

    def build(self, site: Site) -> nn.Module:
        """Make trainable copies of the site's parameters."""
        return TunedLayer(site.module, _parameters(site.module), wakes=True)


@dataclass(frozen=True)
class FullFineTuning(PartialFineTuning):
    """Train the whole model, with its own dropout and drop-path; norms keep their statistics.

    The learning rate decreases towards the stem (Clark et al., "ELECTRA", ICLR 2020; Bao et al., "BEiT", ICLR 2022).
    If blocks, stages, names or types are chosen, only these are trained, as in `PartialFineTuning`.

    Trainable parameters: all of the model's, or those of the chosen sites.

    Attributes:
        layer_decay: factor in (0, 1] on the learning rate from one block to the previous one; see `parameter_groups`.
    """

    blocks: str = "all"
    layer_decay: float = 0.75

    @property
    def whole_model(self) -> bool:
        """Whether nothing is chosen, so that the stem and the final norm are trained too."""
        return (self.blocks, self.stages, self.where, self.types) == ("all", "all", "", "")

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return the model itself, which `attach` passes as the only site, or the chosen blocks."""
        return list(sites) if self.whole_model else super().own_places(sites)


@dataclass(frozen=True)
class LinearProbeFineTuning(FullFineTuning):
    """LP-FT: first train only the head, then everything.

    Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.

    Attributes:
        probe: share of the epochs, in (0, 1), in which only the head is trained; see `frozen_in`.
    """

    probe: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.probe < 1, f"probe={self.probe} must be a share of the epochs above 0 and below 1")


def frozen_in(settings: object, epoch: int, epochs: int) -> bool:
    """Return whether only the head is trained in that epoch, counted from 0.

    Call `switch(model)` for those epochs and `switch(model, name)` from then on. Always False for methods other than
    `LinearProbeFineTuning`.

    >>> [frozen_in(LinearProbeFineTuning(probe=0.5), epoch, epochs=5) for epoch in range(5)]
    [True, True, False, False, False]
    """
    return isinstance(settings, LinearProbeFineTuning) and epoch < round(settings.probe * epochs)


def _parameters(module: nn.Module) -> list[str]:
    """Return the dotted name of every parameter in the module, tied ones by each name, except those of adapters."""
    parts = modules_below(module)
    return [
        key for name, part in parts for key, _ in part.named_parameters(name, recurse=False, remove_duplicate=False)
    ]


def _outermost(sites: list[Site]) -> list[Site]:
    """Return the sites that are inside no other of them."""
    modules = {id(site.module) for site in sites}
    nested = {id(inner) for site in sites for inner in list(site.module.modules())[1:]}
    return [site for site in sites if id(site.module) in modules - nested]
