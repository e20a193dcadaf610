"""Write docs/measurements/export.md: whether exports of many families agree with the classifier, and their speed.

    python -m benchmarks.export --kept export.jsonl --data PHOTOS

measures what the file of finished measurements does not hold yet, and writes the page from it.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

import visionadapt as va
from benchmarks.sections import write_section
from tests.backbones.conftest import FAMILIES, randomise
from visionadapt.backbones import Backbone
from visionadapt.commands.training_run import train
from visionadapt.errors import UsageError
from visionadapt.export.export import export
from visionadapt.export.golden import decoded, reference
from visionadapt.export.onnx_model import onnx_model
from visionadapt.export.reduced import FILES, reduced_model
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import plan_for
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.distance import fit_distance
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs.options import RunOptions

PAGE = Path(__file__).parents[1] / "docs" / "measurements" / "export.md"
_CASES: dict[str, tuple[str | None, bool]] = {
    "probe": (None, True),
    "bottleneck": ("bottleneck(rank=4, blocks=last:50%)", True),
    "LoRA": ("lora(rank=4, blocks=last:50%)", False),
    "LoRA, merged": ("lora(rank=4, blocks=last:50%)", True),
}
"""Adapter, and whether it is merged."""
_CLASSES = tuple("abcde")
_ROUNDS = 7
_ENOUGH = 1e-4


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kept", type=Path, required=True, help="file of finished measurements, one JSON object a line"
    )
    parser.add_argument("--data", type=Path, help="photographs in train/, validation/ and test/ with class folders")
    parser.add_argument("--models", nargs="*", default=list(FAMILIES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = read(given.kept)
    for name in given.models:
        for case in _CASES:
            if not any((row.get("model"), row.get("case")) == (name, case) for row in kept):
                keep(given.kept, agreement(name, case))
    if given.data is not None and not any("test_images" in row for row in kept):
        for row in losses(given.data):
            keep(given.kept, row)
    if given.data is not None and not any("batch" in row for row in kept):
        for row in speeds(sorted(given.data.rglob("*.jpg"))):
            keep(given.kept, row)
    write_section(PAGE, page(read(given.kept)))


def read(path: Path) -> list[dict[str, Any]]:
    """The finished measurements."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, row: dict[str, Any]) -> None:
    """Add a measurement."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def predictor_of(name: str, adapter: str | None, weights: str, size: int | None) -> Predictor:
    """A predictor with random trained parameters, and with random weights unless they are pretrained."""
    model = va.classifier(name, _CLASSES, adapter, weights, size).eval()
    if weights == "none":
        randomise(model.backbone.model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    if weights == "none":
        settle(model.backbone)
    frozen = FrozenPart(model)
    return Predictor(Pipeline(frozen, va.preprocessing_for(model), plan_for(frozen)))


def settle(backbone: Backbone) -> None:
    """Give batch norms the statistics of some images, as after a training.

    With the statistics that `randomise` draws, or none, the features of some networks grow so large that no two
    computations in float32 agree.
    """
    norms = [each for each in backbone.model.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    with torch.no_grad():
        backbone(torch.randn(64, *backbone.blank_pixels().shape[1:], generator=torch.Generator().manual_seed(3)))
    for norm in norms:
        norm.training = False


def agreement(name: str, case: str) -> dict[str, Any]:
    """Export one classifier; how far its probabilities differ at most, and its features relative to their norm."""
    adapter, merge = _CASES[case]
    row: dict[str, Any] = {"model": name, "case": case}
    started = time.perf_counter()
    try:
        predictor = reference(predictor_of(name, adapter, "none", FAMILIES[name]))
        model, merged = onnx_model(predictor, merge=merge)
        row["merged"] = merged
        row["seconds"] = time.perf_counter() - started
        session = opened(model)
    except UsageError as error:
        return {**row, "refused": str(error)}
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (90, 120 + 10 * number, 3), dtype=np.uint8) for number in range(3)]
    found = [session.run(["probabilities", "features"], {"image": image[None]}) for image in images]
    pixels = torch.stack([predictor.prepare.host(image) for image in images])
    features, logits = predictor.pipeline.outputs(pixels)
    own = predictor.calibration.probabilities(logits).numpy()
    apart = np.concatenate([each[1] for each in found]) - features.numpy()
    row["probabilities"] = float(np.abs(np.concatenate([each[0] for each in found]) - own).max())
    row["features"] = float(np.linalg.norm(apart) / np.linalg.norm(features.numpy()))
    if max(row["probabilities"], row["features"]) > _ENOUGH:
        row["exact"] = exactly(predictor, pixels, np.concatenate([each[1] for each in found]), features.numpy())
    return row


@torch.inference_mode()
def exactly(predictor: Predictor, pixels: torch.Tensor, export: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """Norm of the features in float64, and how far those of the export and of the classifier are from them."""
    backbone = copy.deepcopy(predictor.classifier.backbone).double()
    features = backbone(predictor.prepare.device(pixels).double()).numpy()
    norm = float(np.linalg.norm(features))
    return {
        "norm": norm,
        **{k: float(np.linalg.norm(v - features)) / norm for k, v in (("export", export), ("own", own))},
    }


def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def losses(data: Path) -> Iterator[dict[str, Any]]:
    """Accuracy on the test part of a solved head on the default backbone: `predict`, its export, and reduced ones."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = train(RunOptions(data=str(data), out=str(folder / "run"), adapter="none"), va.TrainingSettings(workers=0))
        predictor = va.load(run, "cpu")
        files = sorted((data / "test").rglob("*.jpg"))
        labels = np.array([predictor.classes.index(path.parent.name) for path in files])
        images = [decoded(predictor.prepare, path.read_bytes()) for path in files]
        exact = predictor.predict_proba(images)
        found = {"predict": exact}
        for precision, name in FILES.items():
            export(run, folder / precision, precision=precision)
            for each in ("model.onnx", name):
                if each not in found:
                    found[each] = exported(opened(onnx.load(folder / precision / each)), images)
        for way, each in found.items():
            chosen = each.argmax(1)
            yield {
                "way": way,
                "test_images": len(files),
                "accuracy": float((chosen == labels).mean()),
                "same": float((chosen == exact.argmax(1)).mean()),
                "apart": float(np.abs(each - exact).max()),
            }


def speeds(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Milliseconds per image of a probe of the default backbone, decoded photographs to probabilities, alternating."""
    predictor = predictor_of("tf_efficientnet_lite0", None, "pretrained", None)
    features = torch.rand(60, predictor.classifier.backbone.num_features, generator=torch.Generator().manual_seed(0))
    distance = fit_distance(features, torch.arange(60) % 3, 3).measured_on(features)
    predictor = dataclasses.replace(predictor, calibration=Calibration(distance=distance))
    model = onnx_model(predictor)[0]
    images = [decoded(predictor.prepare, path.read_bytes()) for path in files[:32]]
    learning = [decoded(predictor.prepare, path.read_bytes()) for path in files[32:96]]
    models = {"model.onnx": model, **{name: reduced_model(model, kind, learning) for kind, name in FILES.items()}}
    ways: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {"predict": predictor.predict_proba}
    ways |= {name: partial(exported, opened(each)) for name, each in models.items()}
    rows = []
    for batch in (1, 32):
        some, seconds = images[:batch], {name: [] for name in ways}
        exact = ways["predict"](some)
        apart = {name: float(np.abs(exact - way(some)).max()) for name, way in ways.items()}
        for _ in range(_ROUNDS):
            for name, way in ways.items():
                started = time.perf_counter()
                way(some)
                seconds[name].append((time.perf_counter() - started) / batch)
        for name, each in seconds.items():
            rows.append({"batch": batch, "way": name, "ms": 1000 * float(np.median(each)), "apart": apart[name]})
    return rows


def exported(session: onnxruntime.InferenceSession, images: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities of photographs of mixed sizes, one by one, as a program with the file alone computes them."""
    return np.concatenate([session.run(["probabilities"], {"image": image[None]})[0] for image in images])


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page."""
    cells = {(row["model"], row["case"]): row for row in rows if row.get("model") in FAMILIES}
    lines = [
        "# Exports",
        "",
        "This file is written by `python -m benchmarks.export`; do not edit it.",
        "",
        "Largest difference of the probabilities of an export from those of the classifier, on three images, with",
        "random weights, statistics of batch norms from 64 images of noise, and 5 classes; in brackets that of the",
        "pooled features, relative to their norm. The inputs are small (32 to 64 pixels, but for one model). Bold:",
        "more than 1e-4 in either. A dash: not measured.",
        "",
        f"| model | {' | '.join(_CASES)} |",
        f"|{'---|' * (len(_CASES) + 1)}",
    ]
    for model in FAMILIES:
        found = [cells.get((model, case)) for case in _CASES]
        lines.append(f"| `{model}` | {' | '.join(map(cell, found))} |")
    judged = [row for row in cells.values() if "exact" in row]
    if judged:
        lines += [
            "",
            "Random weights can make features so large, and so sensitive to rounding, that two computations in float32",
            "differ. Where a cell is bold, float64 tells which of them is off:",
            "",
            "| model | case | norm of the features | export from float64 | classifier in float32 from float64 |",
            "|---|---|---|---|---|",
        ]
        for row in judged:
            norm, *apart = (f"{row['exact'][name]:.0e}" for name in ("norm", "export", "own"))
            lines.append(f"| `{row['model']}` | {row['case']} | {norm} | {' | '.join(apart)} |")
    tested = [row for row in rows if "test_images" in row]
    if tested:
        lines += [
            "",
            f"A linear probe of the default backbone, on {tested[0]['test_images']} test photographs, decoded as this",
            "library does:",
            "",
            "| way | accuracy | same class as `predict` | largest difference of a probability |",
            "|---|---|---|---|",
            *(f"| `{row['way']}` | {row['accuracy']:.4f} | {row['same']:.1%} | {row['apart']:.1g} |" for row in tested),
        ]
    timed = [row for row in rows if "batch" in row]
    if timed:
        versions = f"torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}"
        lines += [
            "",
            f"Speed of a probe of the default backbone, decoded photographs to probabilities, one thread, {versions}:",
            f"medians of {_ROUNDS} alternating rounds. The export gets photographs of mixed sizes one by one.",
            "",
            "| images | way | ms per image | largest difference of a probability from `predict` |",
            "|---|---|---|---|",
            *(f"| {row['batch']} | `{row['way']}` | {row['ms']:.1f} | {row['apart']:.1g} |" for row in timed),
            "",
            "`float16.onnx` and `int8.onnx` are of the same classifier, whose head is random: their differences here",
            "say nothing of a trained one. Other programs were running: compare the ways of one block with each other,",
            "and no time with that of another machine.",
        ]
    return "\n".join([*lines, ""])


def cell(row: dict[str, Any] | None) -> str:
    """One cell of the table."""
    if row is None:
        return "–"
    if "refused" in row:
        return f"refused: {row['refused']}"
    apart = row["probabilities"], row["features"]
    told = f"{apart[0]:.0e} ({apart[1]:.0e})"
    return f"**{told}**" if max(apart) > _ENOUGH else told


if __name__ == "__main__":
    main()
