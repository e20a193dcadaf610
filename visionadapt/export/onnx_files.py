"""The ONNX files of an exported folder, reduced ones too, and what is measured of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from visionadapt.errors import UsageError, VisionAdaptError
from visionadapt.export.folder import MANIFEST, MODELS, PREPARED_MODELS, Models, Reduction
from visionadapt.export.golden import Array, decoded, golden_files
from visionadapt.export.onnx_model import describe, digests, onnx_model, prepared_model
from visionadapt.export.reduced import FILES, Cost, cost, reduced_model
from visionadapt.export.run_images import RunImages, problem, run_images
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs.folder import read_json

_LEARNING, _MEASURED = 128, 256
"""Images of the training that int8 learns ranges from, and of the validation that its cost is measured on, at most."""


def onnx_files(
    run: Path, predictor: Predictor, facts: Mapping[str, Any], prepared: bool, precision: Reduction | None
) -> Models:
    """Return the ONNX files of a predictor on the CPU in float32; the parameters are those of `export`.

    Raises:
        UsageError: the run cannot be exported or reduced: the message names the reason.
    """
    learning = _learning_images(run, predictor, precision)
    model, merged = onnx_model(predictor)
    made = {MODELS["onnx"]: model}
    if prepared:
        made[PREPARED_MODELS["onnx"]] = prepared_model(model)
    reduced, costs = _reduced(run, predictor, model, precision, learning)
    made |= reduced
    for each in made.values():
        describe(each, {**facts, "adapter_merged": merged})
    files = {name: each.SerializeToString() for name, each in made.items()}
    return Models(files, {"adapter_merged": merged, "weights": digests(model), **costs})


def costs(folder: Path) -> dict[str, str]:
    """Return what each reduced model of an exported folder costs, by file name."""
    stored: Mapping[Reduction, dict[str, Any]] = read_json(folder, MANIFEST).get("reduced", {})
    fields = [item.name for item in dataclasses.fields(Cost)]
    told = {name: Cost(**{field: facts[field] for field in fields}) for name, facts in stored.items()}
    return {FILES[name]: f"{each} ({stored[name]['measured_on']} images)" for name, each in told.items()}


def _learning_images(run: Path, predictor: Predictor, precision: Reduction | None) -> list[Array]:
    """Return the images that int8 learns ranges from; none for other formats.

    Raises:
        UsageError: int8 needs images of the training, which are not available.
    """
    try:
        return run_images(run, predictor, "train", _LEARNING).images if precision == "int8" else []
    except VisionAdaptError as error:
        reason = f"{problem(error)}; export where they are, or with --precision float16"
        raise UsageError(f"--precision int8 learns from images of the training: {reason}") from error


def _reduced(
    run: Path, predictor: Predictor, model: onnx.ModelProto, precision: Reduction | None, learning: list[Array]
) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """Return the reduced model by file name, and what the manifest says of it; empty without one."""
    if precision is None:
        return {}, {}
    smaller = reduced_model(model, precision, learning)
    golden = [decoded(predictor.prepare, file.data) for file in golden_files(predictor)]
    try:
        found, part = run_images(run, predictor, "val", _MEASURED), "validation"
    except VisionAdaptError:
        found, part = RunImages(golden, None), "golden"
    facts = {"measured_on": part, **dataclasses.asdict(cost(model, smaller, *found))}
    facts["golden_largest"] = cost(model, smaller, golden, None).largest
    return {FILES[precision]: smaller}, {"reduced": {precision: facts}}
