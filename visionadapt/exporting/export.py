"""`export`: write a folder that serves a run's classifier without this library."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper

from visionadapt.core import spec
from visionadapt.errors import RunError, UsageError, VisionAdaptError
from visionadapt.exporting.examples import examples
from visionadapt.exporting.golden import decoded, expected, golden_files, reference
from visionadapt.exporting.onnx_model import describe, onnx_model, prepared_model
from visionadapt.exporting.reduced import FILES, Cost, Reduction, cost, reduced_model
from visionadapt.exporting.run_images import RunImages, problem, run_images
from visionadapt.prediction.predictor import Predictor
from visionadapt.run_folder import saved
from visionadapt.run_folder.folder import is_run, read_json
from visionadapt.run_folder.tensors import write_tensors
from visionadapt.system.storage import file_sha256, replacing_folder, write_bytes, write_json, write_text
from visionadapt.version import __version__

FORMAT = 1
MANIFEST, MODEL, PREPARED_MODEL, GOLDEN = "manifest.json", "model.onnx", "prepared.onnx", "golden"
EXPECTED = f"{GOLDEN}/expected.safetensors"
_LEARNING, _MEASURED = 128, 256
"""Images of the training that int8 learns ranges from, and of the validation that its cost is measured on, at most."""
STORED = ("resized", "features", "logits", "probabilities", "class_index", "abstain", "distance")
"""Stages whose expected values are stored with the golden images; the others follow from them."""


def export(
    run: str | Path,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    prepared: bool = False,
    precision: Reduction | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a run as an ONNX file with all that uses and proves it.

    `docs/guides/export.md` describes the folder.

    Args:
        run: run folder.
        out: the folder to make.
        weights: the backbone's weights, if they are elsewhere than in training.
        prepared: whether to write a second model too, which takes images that are resized and normalised already.
        precision: number format of a further model, smaller and less exact, whose cost is in the manifest.
        overwrite: whether to replace an exported folder.

    Returns:
        The folder.

    Raises:
        UsageError: the run cannot be exported: the message names the reason.
        RunError: the folder is there already, or cannot be made.
    """
    run, out = Path(run), Path(out)
    _check_free(out, overwrite)
    predictor = reference(saved.load(run, "cpu", weights=weights))
    model, merged = onnx_model(predictor)
    facts = _facts(run, predictor, merged)
    described = {name: fact for name, fact in facts.items() if fact is not None}
    describe(model, described)
    reduced, costs = _reduced(run, predictor, model, precision)
    for each in reduced.values():
        describe(each, described)
    with replacing_folder(out) as fresh:
        (fresh / GOLDEN).mkdir(parents=True)
        write_bytes(fresh / MODEL, model.SerializeToString())
        if prepared:
            write_bytes(fresh / PREPARED_MODEL, prepared_model(model).SerializeToString())
        for name, each in reduced.items():
            write_bytes(fresh / name, each.SerializeToString())
        for name, text in examples(predictor.classifier.backbone.blank_pixels().shape[1]).items():
            write_text(fresh / name, text)
        golden = _write_golden(fresh, predictor)
        made = {
            "format": FORMAT,
            "visionadapt": __version__,
            **facts,
            **costs,
            "golden": golden,
            "weights": digests(model),
        }
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        made["files"] = {path.relative_to(fresh).as_posix(): file_sha256(path) for path in files}
        write_json(fresh / MANIFEST, made)
    return out


def _reduced(
    run: Path, predictor: Predictor, model: onnx.ModelProto, precision: Reduction | None
) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """Return the reduced model by file name, and what the manifest says of it; empty without one.

    Raises:
        UsageError: int8 needs images of the training, which are not available.
    """
    if precision is None:
        return {}, {}
    try:
        learning = run_images(run, predictor, "train", _LEARNING).images if precision == "int8" else []
    except VisionAdaptError as error:
        reason = f"{problem(error)}; export where they are, or with --precision float16"
        raise UsageError(f"--precision int8 learns from images of the training: {reason}") from error
    smaller = reduced_model(model, precision, learning)
    golden = [decoded(predictor.prepare, file.data) for file in golden_files(predictor)]
    try:
        found, part = run_images(run, predictor, "val", _MEASURED), "validation"
    except VisionAdaptError:
        found, part = RunImages(golden, None), "golden"
    facts = {"measured_on": part, **dataclasses.asdict(cost(model, smaller, *found))}
    facts["golden_largest"] = cost(model, smaller, golden, None).largest
    return {FILES[precision]: smaller}, {"reduced": {precision: facts}}


def digests(model: onnx.ModelProto) -> dict[str, str]:
    """Return the SHA-256 of each constant of a graph by name, 64 hex digits."""
    tensors = ((each.name, numpy_helper.to_array(each)) for each in model.graph.initializer)
    return {name: hashlib.sha256(str(array.dtype).encode() + array.tobytes()).hexdigest() for name, array in tensors}


def costs(folder: Path) -> dict[str, str]:
    """Return what each reduced model of an exported folder costs, by file name."""
    stored: Mapping[Reduction, dict[str, Any]] = read_json(folder, MANIFEST).get("reduced", {})
    fields = [item.name for item in dataclasses.fields(Cost)]
    told = {name: Cost(**{field: facts[field] for field in fields}) for name, facts in stored.items()}
    return {FILES[name]: f"{each} ({stored[name]['measured_on']} images)" for name, each in told.items()}


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export's manifest, and is no run folder."""
    return (folder / MANIFEST).is_file() and (folder / MODEL).is_file() and not is_run(folder)


def _check_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise RunError(f"{out} is there already; give another --out, or --overwrite it")
    if out.exists() and not is_export(out) and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} holds no export, so it is not overwritten; give another --out")


def _facts(run: Path, predictor: Predictor, merged: bool) -> dict[str, Any]:
    """Return what the manifest and the model's metadata say of the classifier."""
    model, calibration = predictor.classifier, predictor.calibration
    return {
        "class_names": list(model.classes),
        "task": model.task,
        "temperature": calibration.temperature,
        "threshold": calibration.threshold,
        "thresholds": list(calibration.thresholds),
        "preprocessing": predictor.prepare.to_json(),
        "backbone": model.backbone.name,
        "backbone_weights": model.backbone.weights_hash,
        "adapter": "none" if model.adapter is None else spec.format(model.adapter, "adapter"),
        "adapter_merged": merged,
        "run": file_sha256(run / "model.safetensors"),
        "license": _license(model.backbone.name),
    }


def _license(backbone: str) -> str | None:
    """Return the licence of a backbone's pretrained weights, as far as timm knows it."""
    import timm

    config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    return getattr(config, "license", None)


def _write_golden(out: Path, predictor: Predictor) -> list[Mapping[str, Any]]:
    """Write the golden images and what is expected of them; return their entries in the manifest."""
    files = golden_files(predictor)
    values = expected(predictor, [file.data for file in files])
    names = [f"{GOLDEN}/{number}{file.suffix}" for number, file in enumerate(files)]
    for name, file in zip(names, files, strict=True):
        write_bytes(out / name, file.data)
    write_tensors(out / EXPECTED, {name: torch.from_numpy(values[name].copy()).nan_to_num() for name in STORED}, {})
    entries: list[Mapping[str, Any]] = []
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        index = int(values["class_index"][row])
        entries.append(
            {
                "file": name,
                "name": file.name,
                "label": predictor.classes[index],
                "probability": float(values["probabilities"][row, index]),
                "abstain": bool(values["abstain"][row]),
            }
        )
    return entries
