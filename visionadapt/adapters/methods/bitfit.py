"""BitFit: train the biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.tuned_layer import TunedLayer
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class BitFit(Placement):
    """Train the biases.

    Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
    ACL 2022. Trains every parameter named `bias` or `…_bias` that a site holds directly.

    Trainable parameters: one per output channel of every layer with a bias.
    """

    learning_rate: ClassVar[float] = 1e-2  # chosen on validation splits: docs/measurements/defaults.md

    def refuse(self, site: Site) -> str:
        return "" if _biases(site.module) else "it has no bias"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return every site except the blocks, whose layers are sites themselves."""
        return [site for site in sites if site.kind != "block"]

    def build(self, site: Site) -> nn.Module:
        """Make trainable copies of the site's biases."""
        return TunedLayer(site.module, _biases(site.module))


def _biases(module: nn.Module) -> list[str]:
    names = [name for name, _ in module.named_parameters(recurse=False)]
    return [name for name in names if name == "bias" or name.endswith("_bias")]
