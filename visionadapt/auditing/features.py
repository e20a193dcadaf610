"""Features of every usable row from a frozen backbone, kept in the cache that training uses too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from visionadapt.backbones import load
from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.dataset import Finding
from visionadapt.frozen.features import Progress, compute_features, run_suffix
from visionadapt.frozen.planning import Job, make_plan
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.model.preprocessing import preprocessing_for

Told = Callable[[str], AbstractContextManager[Progress]]
"""Opens something that shows progress, under the name of what goes on."""

_ROWS = 256


def silent(what: str) -> AbstractContextManager[Progress]:
    """Shows no progress."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone with nothing to train: its features are those of a linear probe.

    Attributes:
        model: the classifier; its head is not used.
        settings: device and workers.
        cache: folder of the cache.
    """

    model: Classifier
    settings: TrainingSettings
    cache: Path

    @classmethod
    def load(
        cls, name: str, weights: str, image_size: int | None, settings: TrainingSettings, cache: Path
    ) -> FrozenBackbone:
        """Load a backbone by its timm name.

        Raises:
            BackboneError: it is unknown, or its weights are not at hand.
        """
        model = Classifier(load(name, weights, image_size, seed=settings.seed), ("any",), None)
        return cls(model, settings, cache)

    @property
    def side(self) -> int:
        """Side of the input in pixels."""
        return self.model.backbone.config.image_size

    def preparation(self, policy: str | None = None) -> Preprocessing:
        """How pictures become the backbone's input: its own way, or by another policy."""
        return preprocessing_for(self.model, policy)

    def features(
        self,
        manifest: Manifest,
        settled: Sequence[Finding],
        policy: str | None = None,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float32]:
        """Pooled features float32 [N, D] of the rows that `settled` does not reject, in order.

        Raises:
            SourceError: a file has changed since `settled`.
        """
        prepare = self.preparation(policy)
        plan = make_plan(self.model, self.settings, Job(train=len(settled), cache=self.cache), prepare)
        torch.set_num_threads(plan.threads)
        self.model.to(plan.device)
        found = compute_features(
            self.model,
            manifest,
            prepare,
            plan,
            self.cache,
            workers=self.settings.workers,
            settled=settled,
            progress=progress,
        )
        result = np.empty((len(found), self.model.backbone.num_features), np.float32)
        for start in range(0, len(found), _ROWS):
            rows = range(start, min(start + _ROWS, len(found)))
            with torch.inference_mode():
                pooled = run_suffix(self.model, prepare, plan, found.batch(rows))
            result[rows.start : rows.stop] = pooled.float().cpu().numpy()
        return result
