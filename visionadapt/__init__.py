"""visionadapt: fine-tune pretrained vision backbones on your own images.

Public names are imported when they are first used: importing the package loads no torch.
"""

from __future__ import annotations

import importlib
import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from visionadapt.system import first_line
from visionadapt.version import __version__ as __version__

first_line.begin()

if TYPE_CHECKING:
    from visionadapt import adapters as adapters
    from visionadapt import backbones as backbones
    from visionadapt import errors as errors
    from visionadapt import images as images
    from visionadapt import sources as sources
    from visionadapt import tasks as tasks
    from visionadapt.auditing import audit as audit
    from visionadapt.commands.functions import curves as curves
    from visionadapt.commands.functions import evaluate as evaluate
    from visionadapt.commands.functions import train as train
    from visionadapt.core.records import Manifest as Manifest
    from visionadapt.core.records import Record as Record
    from visionadapt.core.settings import TrainingSettings as TrainingSettings
    from visionadapt.data.loading import loader as loader
    from visionadapt.data.sample_range import with_measured_range as with_measured_range
    from visionadapt.data.splits import folds as folds
    from visionadapt.data.splits import split as split
    from visionadapt.evaluation.validation import calibrate as calibrate
    from visionadapt.model.classifier import Classifier as Classifier
    from visionadapt.model.classifier import classifier as classifier
    from visionadapt.model.ensemble import ensemble as ensemble
    from visionadapt.model.heatmaps import heat_maps as heat_maps
    from visionadapt.model.preprocessing import preprocessing_for as preprocessing_for
    from visionadapt.model.shared import SharedClassifiers as SharedClassifiers
    from visionadapt.model.timm_model import timm_model as timm_model
    from visionadapt.prediction.prediction import Prediction as Prediction
    from visionadapt.prediction.predictor import Predictor as Predictor
    from visionadapt.runs.saved import load as load
    from visionadapt.runs.saved import save as save
    from visionadapt.training.epochs import Epoch as Epoch
    from visionadapt.training.loop import fit as fit

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
    "curves": "commands.functions",
    "ensemble": "model.ensemble",
    "evaluate": "commands.functions",
    "fit": "training.loop",
    "folds": "data.splits",
    "heat_maps": "model.heatmaps",
    "load": "runs.saved",
    "loader": "data.loading",
    "preprocessing_for": "model.preprocessing",
    "save": "runs.saved",
    "split": "data.splits",
    "timm_model": "model.timm_model",
    "train": "commands.functions",
    "with_measured_range": "data.sample_range",
}
_PACKAGES = ("adapters", "backbones", "errors", "images", "sources", "tasks")

__all__ = sorted((*_HOME, *_PACKAGES))

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _PACKAGES:
            return importlib.import_module(f"visionadapt.{name}")
        if name in _HOME:
            return getattr(importlib.import_module(f"visionadapt.{_HOME[name]}"), name)
        raise AttributeError(f"module 'visionadapt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """A package whose functions are not replaced by command modules of the same name.

    Importing `visionadapt.train` makes Python set the attribute `train` of the package to that module. The module is
    still what `python -m visionadapt.train` and `importlib.import_module("visionadapt.train")` find.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
logging.getLogger("visionadapt").addHandler(logging.NullHandler())
