"""Check the torch.export programs of an export on golden images, stage by stage, in PyTorch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from visionadapt.export.check import Check, OpenedModel, model_check, not_run, prepared_check
from visionadapt.export.folder import MODELS, PREPARED_MODELS, STAGES
from visionadapt.export.golden import Array
from visionadapt.export.reading import ExportedFolder
from visionadapt.export.torch_model import METADATA, digests
from visionadapt.prediction.predictor import Predictor


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
    program, names = _opened(exported.path / MODELS["torch"])
    found = _stages(program, [{"image": image[None]} for image in images])
    yield model_check(exported, OpenedModel(names, digests(program), found), images, wanted, predictor)
    if exported.has(PREPARED_MODELS["torch"]):
        program, _ = _opened(exported.path / PREPARED_MODELS["torch"])
        yield prepared_check(exported, _stages(program, [{"prepared": wanted["prepared"]}]), wanted)


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


def _stages(program: ExportedProgram, feeds: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Run a program on each feed; return the results of every stage that it has, N images first."""
    try:
        module = program.module()
        rows = [module(**{name: torch.from_numpy(np.array(each)) for name, each in feed.items()}) for feed in feeds]
        names = [name for name in STAGES if all(name in row for row in rows)]
        return {name: np.concatenate([row[name].numpy() for row in rows]) for name in names}
    except Exception as error:  # whatever the program raises
        raise not_run(error) from error
