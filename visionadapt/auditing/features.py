"""Features of every usable row from a frozen backbone, kept in the cache that training uses too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from visionadapt.backbones import load
from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.dataset import Finding
from visionadapt.data.sample_range import with_measured_range
from visionadapt.frozen.features import Progress, compute_features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import Job, make_plan
from visionadapt.images import Preprocessing
from visionadapt.images.depth import GivenRange
from visionadapt.model.classifier import Classifier
from visionadapt.model.preprocessing import preprocessing_for

Told = Callable[[str], AbstractContextManager[Progress]]
"""Opens something that shows progress, under the name of what goes on."""


def silent(what: str) -> AbstractContextManager[Progress]:
    """Show no progress."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone with nothing to train: its features are those of a linear probe.

    Attributes:
        frozen: a classifier without adapter layers; its head is not used.
        settings: device and workers.
        cache: folder of the cache.
        sample_range, bands: how files of other samples are decoded; see `DecodeAdapter`.
    """

    frozen: FrozenPart
    settings: TrainingSettings
    cache: Path
    sample_range: GivenRange | str = None
    bands: str | None = None

    @classmethod
    def load(
        cls, name: str, weights: str, image_size: int | None, settings: TrainingSettings, cache: Path
    ) -> FrozenBackbone:
        """Load a backbone by its timm name.

        Raises:
            BackboneError: it is unknown, or its weights are not available.
        """
        model = Classifier(load(name, weights, image_size, seed=settings.seed), ("any",), None)
        return cls(FrozenPart(model), settings, cache)

    @property
    def side(self) -> int:
        """Side of the input in pixels."""
        return self.frozen.model.backbone.config.image_size

    def preparation(self, policy: str | None = None) -> Preprocessing:
        """Return the preprocessing for the backbone: its own, or with another resize policy."""
        return preprocessing_for(self.frozen.model, policy, sample_range=self.sample_range, bands=self.bands)

    def measured(self, rows: Manifest) -> FrozenBackbone:
        """Return the same, with the sample range that the rows use, unless one is set."""
        prepare = with_measured_range(self.preparation(), rows, workers=self.settings.workers)
        return replace(self, sample_range=prepare.decode.sample_range)

    def features(
        self,
        manifest: Manifest,
        findings: Sequence[Finding],
        policy: str | None = None,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return pooled features float32 [N, D] of the rows that `findings` does not reject, in order.

        Raises:
            SourceError: a file has changed since the pass that made the findings.
        """
        plan = make_plan(self.frozen, self.settings, Job(train=len(findings), cache=self.cache))
        torch.set_num_threads(plan.threads)
        pipeline = Pipeline(self.frozen, self.preparation(policy), plan)
        found = compute_features(pipeline, manifest, self.settings, self.cache, findings=findings, progress=progress)
        return found.pooled().numpy()
