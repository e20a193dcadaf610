"""`export`: write a folder that serves a run's classifier without this library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from visionadapt.errors import UsageError
from visionadapt.export.examples import examples
from visionadapt.export.folder import EXPECTED, FORMAT, GOLDEN, MANIFEST, STORED, ExportFormat, Reduction, is_export
from visionadapt.export.golden import expected, golden_files, reference
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs import saved
from visionadapt.runs.folder import check_replaceable
from visionadapt.runs.hub import local_run
from visionadapt.runs.tensors import write_tensors
from visionadapt.system.storage import file_sha256, replacing_folder, write_bytes, write_json, write_text
from visionadapt.version import __version__


def export(
    run: str | Path,
    out: str | Path,
    format: ExportFormat = "onnx",  # noqa: A002 - the name of the option
    *,
    weights: str | Path | None = None,
    prepared: bool = False,
    precision: Reduction | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a run as an ONNX file, or as a program of torch.export, with all that uses and proves it.

    `docs/guides/export.md` describes the folder.

    Args:
        run: run folder, or `hf://ORG/NAME`.
        out: the folder to make.
        format: onnx or torch.
        weights: the backbone's weights, if they are elsewhere than in training.
        prepared: whether to write a second model too, which takes images that are resized and normalised already.
        precision: number format of a further ONNX file, smaller and less exact, whose cost is in the manifest.
        overwrite: whether to replace an exported folder.

    Returns:
        The folder.

    Raises:
        UsageError: the run cannot be exported: the message names the reason.
        RunError: the folder is there already, or cannot be made.
    """
    run, out = local_run(run), Path(out)
    if precision is not None and format != "onnx":
        raise UsageError("--precision is for --format onnx")
    check_replaceable(out, overwrite, is_export(out), "export")
    predictor = reference(saved.load(run, "cpu", weights=weights))
    facts = _facts(run, predictor)
    described = {name: fact for name, fact in facts.items() if fact is not None}
    if format == "onnx":
        from visionadapt.export.onnx_files import onnx_files

        models = onnx_files(run, predictor, described, prepared, precision)
    else:
        from visionadapt.export.torch_model import torch_files

        models = torch_files(predictor, described, prepared=prepared)
    with replacing_folder(out) as fresh:
        (fresh / GOLDEN).mkdir(parents=True)
        for name, content in models.files.items():
            write_bytes(fresh / name, content)
        for name, text in examples(format, predictor.classifier.backbone.blank_pixels().shape[1]).items():
            write_text(fresh / name, text)
        golden = _write_golden(fresh, predictor)
        made = {"format": FORMAT, "visionadapt": __version__, **facts, **models.facts, "golden": golden}
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        made["files"] = {path.relative_to(fresh).as_posix(): file_sha256(path) for path in files}
        write_json(fresh / MANIFEST, made)
    return out


def _facts(run: Path, predictor: Predictor) -> dict[str, Any]:
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
        "adapter": ", ".join(model.adapter_specs),
        "run": file_sha256(run / "model.safetensors"),
        "license": weights_license(model.backbone.name),
    }


def weights_license(backbone: str) -> str | None:
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
