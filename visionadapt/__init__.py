"""visionadapt: fine-tune pretrained vision backbones on your own pictures.

Public names are handed out when they are first asked for: importing the package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from visionadapt import adapters, backbones, errors, images, sources, tasks
    from visionadapt.data import loader
    from visionadapt.epochs import Epoch
    from visionadapt.loop import fit
    from visionadapt.model import Classifier, classifier
    from visionadapt.prediction import Prediction, Predictor
    from visionadapt.preparation import preprocessing_for
    from visionadapt.records import Manifest, Record
    from visionadapt.runs import load, save
    from visionadapt.settings import TrainingSettings
    from visionadapt.shared import SharedClassifiers
    from visionadapt.splits import folds, split
    from visionadapt.validation import calibrate

_HOME = {
    "Classifier": "model",
    "Epoch": "epochs",
    "Manifest": "records",
    "Prediction": "prediction",
    "Predictor": "prediction",
    "Record": "records",
    "SharedClassifiers": "shared",
    "TrainingSettings": "settings",
    "calibrate": "validation",
    "classifier": "model",
    "fit": "loop",
    "folds": "splits",
    "load": "runs",
    "loader": "data",
    "preprocessing_for": "preparation",
    "save": "runs",
    "split": "splits",
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
