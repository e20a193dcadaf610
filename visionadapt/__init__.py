"""visionadapt: fine-tune pretrained vision backbones on your own pictures.

Public names are handed out when they are first asked for: importing the package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visionadapt.version import __version__ as __version__

if TYPE_CHECKING:
    from visionadapt import adapters, backbones, errors, images, sources, tasks
    from visionadapt.core.records import Manifest, Record
    from visionadapt.core.settings import TrainingSettings
    from visionadapt.data.loading import loader
    from visionadapt.data.splits import folds, split
    from visionadapt.evaluation.validation import calibrate
    from visionadapt.model.classifier import Classifier, classifier
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
    "calibrate": "evaluation.validation",
    "classifier": "model.classifier",
    "fit": "training.loop",
    "folds": "data.splits",
    "load": "run_folder.saved",
    "loader": "data.loading",
    "preprocessing_for": "model.preprocessing",
    "save": "run_folder.saved",
    "split": "data.splits",
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
    "backbones",
    "calibrate",
    "classifier",
    "errors",
    "fit",
    "folds",
    "images",
    "load",
    "loader",
    "preprocessing_for",
    "save",
    "sources",
    "split",
    "tasks",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _PACKAGES:
            return importlib.import_module(f"visionadapt.{name}")
        if name in _HOME:
            return getattr(importlib.import_module(f"visionadapt.{_HOME[name]}"), name)
        raise AttributeError(f"module 'visionadapt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
