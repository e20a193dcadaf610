"""`verify`: send golden images through every path from a file to a label, and say where and by how much they differ."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from visionadapt.errors import ImageError, UsageError
from visionadapt.export.check import Check
from visionadapt.export.diagnosis import TOLERANCES
from visionadapt.export.examples import examples
from visionadapt.export.folder import MODELS, is_export
from visionadapt.export.golden import Array, decoded, decoded_by_pillow, expected, reference
from visionadapt.export.reading import ExportedFolder, open_export
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs import saved
from visionadapt.runs.hub import local_run
from visionadapt.system.storage import file_sha256

_REDUCED_PRECISION = 0.05
"""Largest difference of probabilities that a run computes in 16 bits from those in float32."""
_EXAMPLE_SECONDS = 300
_MOST_NAMED = 3


def verify(
    folder: str | Path, run: str | Path | None = None, *, weights: str | Path | None = None, trust: bool = False
) -> list[Check]:
    """Check a run folder, or an exported folder against its manifest, and against its run where that is given.

    Without its run, an export can only be compared with what it says of itself.

    Args:
        folder: run folder or `hf://ORG/NAME`, or folder of `export`.
        run: the run folder that was exported, or `hf://ORG/NAME`.
        weights: the backbone's weights, if they are elsewhere than in training.
        trust: whether to open programs of torch.export, which can run code: true only for an export of one's own.

    Raises:
        UsageError: the export is a program of torch.export, and not trusted.
        RunError: the folder is neither, is damaged, or names files outside of itself.
    """
    folder = local_run(folder)
    if not is_export(folder):
        return _run_checks(saved.load(folder, "cpu", weights=weights))
    exported = open_export(folder)
    if exported.kind == "torch" and not trust:
        raise UsageError(
            f"{exported.path / MODELS['torch']} could run code when torch opens it; verify it with --trust if the "
            "export is your own, or export it to ONNX"
        )
    golden, wanted = exported.golden(), exported.expected()
    problems, checks, predictor = exported.changed_files(), [], None
    if run is not None:
        run = local_run(run)
        predictor = saved.load(run, "cpu", weights=weights)
        problems += _other_run(exported, run, predictor)
        exported = dataclasses.replace(exported, prepare=predictor.prepare)
        checks = _run_checks(predictor)
        wanted = expected(reference(predictor), golden.values())
    checks.insert(0, Check("files", tuple(problems[:_MOST_NAMED])))
    images = [decoded(exported.prepare, data) for data in golden.values()]
    wanted["prepared"] = exported.prepare.device(torch.from_numpy(wanted["resized"])).numpy()
    if exported.kind == "onnx":
        from visionadapt.export.onnx_checks import onnx_checks as model_checks
    else:
        from visionadapt.export.torch_checks import torch_checks as model_checks
    checks += model_checks(exported, images, wanted, predictor)
    if images and examples(exported.kind, images[0].shape[2]):
        checks.append(_example(exported, golden, images, wanted))
    return checks


def _run_checks(predictor: Predictor) -> list[Check]:
    """Compare the golden images' logits in training with those now, and `predict` with the arithmetic in float32."""
    golden = predictor.golden
    if not golden:
        return [Check("training", notes=("the run has no golden images",))]
    now = predictor.logits(torch.stack([predictor.prepare.host(image.data) for image in golden]))
    before = torch.stack([image.logits for image in golden])
    own = [predictor.calibration.probabilities(logits).numpy() for logits in (now, before)]
    plan = predictor.plan
    first, least = (  # runs of before 0.1.0 may have validated in the number format of the steps
        TOLERANCES["probabilities"] if formats == {"float32"} else _REDUCED_PRECISION
        for formats in ({plan.precision, plan.prefix_precision}, {plan.prefix_precision})
    )
    training = float(np.abs(own[0] - own[1]).max())
    proba = predictor.predict_proba([image.data for image in golden])
    exact = expected(reference(predictor), [image.data for image in golden])["probabilities"]
    apart = float(np.abs(proba - exact).max())
    return [_compared("training", training, first), _compared("predict", apart, least)]


def _compared(path: str, apart: float, least: float) -> Check:
    text = f"probabilities differ by up to {apart:.2g}"
    return Check(path, (text,)) if apart > least else Check(path, notes=(text,))


def _other_run(exported: ExportedFolder, run: Path, predictor: Predictor) -> list[str]:
    """Return what the manifest says that is not so in the run."""
    problems = []
    if file_sha256(run / "model.safetensors") != exported.manifest.get("run"):
        problems.append(f"it was exported from another run than {run}")
    if exported.prepare != predictor.prepare:
        problems.append("its preprocessing is another one than the run's")
    return problems


def _example(
    exported: ExportedFolder, golden: Mapping[str, bytes], images: list[Array], wanted: Mapping[str, Array]
) -> Check:
    """Run the example as a process of its own, if it is the one that this library writes, on sound golden images."""
    name = "example.py"
    path = exported.path / name
    if not path.is_file() or path.read_bytes() != examples(exported.kind, images[0].shape[2])[name].encode():
        return Check(name, (f"{name} is not the one that this version writes; it was not run",))
    command = [sys.executable, "-I", str(path.absolute()), *(str((exported.path / file).absolute()) for file in golden)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_EXAMPLE_SECONDS, check=True)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        labels = [(answer["label"], float(answer["probability"])) for answer in answers]
    except subprocess.CalledProcessError as error:
        return Check(name, (f"it failed: {(error.stderr.strip().splitlines() or [''])[-1]}",))
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        return Check(name, (f"it did not answer ({type(error).__name__})",))
    problems, notes = [], []
    for row, (file, (label, probability)) in enumerate(zip(golden, labels, strict=True)):
        index = int(wanted["class_index"][row])
        apart = abs(probability - float(wanted["probabilities"][row, index]))
        pixels = _apart(golden[file], images[row])
        text = f"{file}: {label} {probability:.4f}, {apart:.2g} from {exported.classes[index]}"
        if pixels:
            notes.append(
                f"{file}: Pillow alone decodes it otherwise, by {pixels}; the probability differs by {apart:.2g}"
            )
        elif label != exported.classes[index] or apart > TOLERANCES["probabilities"]:
            problems.append(text)
    return Check(name, tuple(problems[:_MOST_NAMED]), tuple(notes))


def _apart(data: bytes, image: Array) -> str:
    """Return by how much Pillow's pixels of a file differ from the library's; empty if they are equal."""
    try:
        other = decoded_by_pillow(data, image.shape[2])
    except (OSError, ValueError, ImageError) as error:
        return f"a failure ({error})"
    if other.shape != image.shape:
        return f"its size {other.shape[1]} × {other.shape[0]}"
    levels = np.abs(other.astype(int) - image.astype(int))
    return f"up to {levels.max()} of 255 (mean {levels.mean():.2g})" if levels.any() else ""
