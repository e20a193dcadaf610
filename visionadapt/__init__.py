"""visionadapt: fine-tune pretrained vision backbones on your own images.

Public names are imported when they are first used: importing the package loads no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from visionadapt.version import __version__ as __version__

if TYPE_CHECKING:
    from visionadapt import adapters, backbones, errors, images, sources, tasks
    from visionadapt.api import evaluate, train
    from visionadapt.auditing import audit
    from visionadapt.core.records import Manifest, Record
    from visionadapt.core.settings import TrainingSettings
    from visionadapt.data.loading import loader
    from visionadapt.data.sample_range import with_measured_range
    from visionadapt.data.splits import folds, split
    from visionadapt.evaluation.validation import calibrate
    from visionadapt.model.classifier import Classifier, classifier
    from visionadapt.model.heatmaps import heat_maps
    from visionadapt.model.preprocessing import preprocessing_for
    from visionadapt.model.shared import SharedClassifiers
    from visionadapt.prediction.prediction import Prediction
    from visionadapt.prediction.predictor import Predictor
    from visionadapt.run_folder.saved import load, save
    from visionadapt.training.epochs import Epoch
    from visionadapt.training.loop import fit

_HOME = {
    "Classifier": "model.classifier",
    "Epoch": "training.epochs",
    "Manifest": "core.records",
    "Prediction": "prediction.prediction",
    "Predictor": "prediction.predictor",
    "Record": "core.records",
    "SharedClassifiers": "model.shared",
    "TrainingSettings": "core.settings",
    "audit": "auditing",
    "calibrate": "evaluation.validation",
    "classifier": "model.classifier",
    "evaluate": "api",
    "fit": "training.loop",
    "folds": "data.splits",
    "heat_maps": "model.heatmaps",
    "load": "run_folder.saved",
    "loader": "data.loading",
    "preprocessing_for": "model.preprocessing",
    "save": "run_folder.saved",
    "split": "data.splits",
    "train": "api",
    "with_measured_range": "data.sample_range",
}
_PACKAGES = ("adapters", "backbones", "errors", "images", "sources", "tasks")

__all__ = [
    "Classifier",
    "Epoch",
    "Manifest",
    "Prediction",
    "Predictor",
    "Record",
    "SharedClassifiers",
    "TrainingSettings",
    "adapters",
    "audit",
    "backbones",
    "calibrate",
    "classifier",
    "errors",
    "evaluate",
    "fit",
    "folds",
    "heat_maps",
    "images",
    "load",
    "loader",
    "preprocessing_for",
    "save",
    "sources",
    "split",
    "tasks",
    "train",
    "with_measured_range",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _PACKAGES:
            return importlib.import_module(f"visionadapt.{name}")
        if name in _HOME:
            return getattr(importlib.import_module(f"visionadapt.{_HOME[name]}"), name)
        raise AttributeError(f"module 'visionadapt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """A package whose functions are not replaced by command modules of the same name.

    Importing `visionadapt.train` makes Python set the attribute `train` of the package to that module. The module is
    still what `python -m visionadapt.train` and `importlib.import_module("visionadapt.train")` find.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
