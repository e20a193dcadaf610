"""Norm tuning: train the factors and shifts of the norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.sublayers import of_kind
from visionadapt.adapters.tuned_layer import TunedLayer
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class NormTuning(Placement):
    """Train the factors and shifts of the norms.

    Frankle et al., "Training BatchNorm and Only BatchNorm", ICLR 2021, for BatchNorm; Basu et al., "Strong Baselines
    for Parameter Efficient Few-Shot Fine-tuning", AAAI 2024 (LN-Tune), for LayerNorm. Running statistics do not change.

    Trainable parameters: 2·C per norm over C channels, C if it has no bias.
    """

    needs: ClassVar[str] = "a norm"
    learning_rate: ClassVar[float] = 1.5e-2  # chosen on validation splits: docs/measurements/defaults.md

    def refuse(self, site: Site) -> str:
        if site.kind != "norm":
            return "it is not a norm"
        return "" if any(True for _ in site.module.parameters(recurse=False)) else "it is a norm without parameters"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Return every norm, inside and outside of blocks."""
        return of_kind(sites, "norm")

    def build(self, site: Site) -> nn.Module:
        """Make trainable copies of the norm's parameters."""
        return TunedLayer(site.module, [name for name, _ in site.module.named_parameters(recurse=False)])
