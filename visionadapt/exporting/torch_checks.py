"""Check the torch.export programs of an export on golden images."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from visionadapt.exporting.check import Check, changed_weights, not_run, wrong_names
from visionadapt.exporting.diagnosis import difference, without_ties
from visionadapt.exporting.folder import MODELS, PREPARED_MODELS
from visionadapt.exporting.golden import Array
from visionadapt.exporting.reading import ExportedFolder
from visionadapt.exporting.torch_model import METADATA, digests
from visionadapt.prediction.predictor import Predictor

_MODEL, _PREPARED_MODEL = MODELS["torch"], PREPARED_MODELS["torch"]
_STAGES = ("features", "probabilities", "class_index", "abstain", "distance")


def torch_checks(
    exported: ExportedFolder, images: list[Array], wanted: Mapping[str, Array], predictor: Predictor | None
) -> Iterator[Check]:
    """Check every program of an export on golden images; opening a program may run code that it holds.

    Args:
        exported: the folder.
        images: golden images as the library decodes them, uint8 [H, W, C].
        wanted: what every stage should give for them.
        predictor: the run that was exported, where it is known.

    Raises:
        RunError: a file is no sound program.
    """
    program, names = _opened(exported.path / _MODEL)
    problems = wrong_names(exported, names, predictor)
    wrong = _difference(program, [{"image": image[None]} for image in images], wanted, exported.threshold)
    yield Check(_MODEL, (*problems, *wrong, *changed_weights(exported, digests(program))))
    if exported.has(_PREPARED_MODEL):
        program, _ = _opened(exported.path / _PREPARED_MODEL)
        yield Check(
            _PREPARED_MODEL, _difference(program, [{"prepared": wanted["prepared"]}], wanted, exported.threshold)
        )


def _opened(path: Path) -> tuple[ExportedProgram, Any]:
    """Return a program, and the class names in its metadata."""
    inside = {METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path, extra_files=inside)
        return program, json.loads(inside[METADATA])["class_names"]
    except Exception as error:  # whatever the loader raises
        raise not_run(error) from error


def _difference(
    program: ExportedProgram, feeds: Iterable[Mapping[str, Array]], wanted: Mapping[str, Array], threshold: float
) -> tuple[str, ...]:
    """Run a program on each feed; return the first answer that differs and by how much, or nothing."""
    try:
        module = program.module()
        rows = [module(**{name: torch.from_numpy(np.array(each)) for name, each in feed.items()}) for feed in feeds]
        found = {name: np.concatenate([row[name].numpy() for row in rows]) for name in _STAGES}
    except Exception as error:  # whatever the program raises
        raise not_run(error) from error
    wanted = without_ties(found, wanted, threshold)
    wrong = (difference(stage, found[stage], wanted[stage]) for stage in _STAGES)
    return tuple(filter(None, wrong))[:1]
