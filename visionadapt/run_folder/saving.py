"""The run folder: everything that one training run decided, measured and learned, in files that a person can open.

| file | holds |
|---|---|
| `config.json` | every resolved setting |
| `plan.json` | how the run computes |
| `ledger.parquet` | a row for each of the source's: used, repaired or rejected, and why |
| `rejected.csv` | the rejected ones of them: file, reason |
| `classes.json`, `preprocess.json` | class names in the order of the logits; decoding, resizing, normalisation |
| `metrics.jsonl` | one line an epoch |
| `checkpoint.safetensors` | what `--resume` goes on from |
| `model.safetensors` | adapter layers and head, with the backbone's name and weight hash |
| `calibration.json`, `calibration.safetensors` | temperature and threshold; the training features' means and spread |
| `golden.safetensors` | a few input files with their pixels and logits |
| `summary.json` | what came out |
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from visionadapt.adapters import AdapterSettings
from visionadapt.core import spec
from visionadapt.errors import ImageError, RunError
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import plan_for
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier, classifier, load_trained_tensors, trained_tensors
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.distance import FeatureDistance
from visionadapt.prediction.predictor import Predictor
from visionadapt.system.storage import sync_folder, write_bytes, write_json
from visionadapt.training.epochs import TrainingState

FORMAT = 1
GOLDEN_PICTURES = 4
GOLDEN_BYTES = 2_000_000
_KEY = "visionadapt"


@dataclass(frozen=True)
class GoldenPicture:
    """A picture file that a run folder keeps, to compare what is made of it.

    Attributes:
        name: its key in the source.
        data: its bytes.
        logits: what training has made of it, float32 [C]; None to ask the classifier.
    """

    name: str
    data: bytes
    logits: Tensor | None = None


def check_free(out: Path, overwrite: bool) -> None:
    """Raise RunError where a run folder cannot be made at `out`: it is there already, or it is somebody else's."""
    if out.exists() and not overwrite:
        raise RunError(f"{out} is there already; give another --out, --resume it, or --overwrite it")
    if out.exists() and not is_run(out) and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is no run folder, so it is not overwritten; give another --out")


def create(out: Path, files: Mapping[str, Mapping[str, Any]], overwrite: bool = False) -> Path:
    """Make a run folder that holds some JSON files, `config.json` among them; at no moment is there one without them.

    Raises:
        RunError: the folder is there already and `overwrite` is not set, or it is no run folder, or it cannot be made.
    """
    check_free(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".run-", dir=out.parent) as beside:
            fresh = Path(beside) / "new"
            fresh.mkdir()
            for name, content in files.items():
                write_json(fresh / name, {"format": FORMAT, **content} if name == "config.json" else content)
            if out.exists():
                out.rename(Path(beside) / "old")
            fresh.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise RunError(f"{out} cannot be made ({error.strerror}); give another --out") from error
    return out


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run's `config.json`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "format" in config


def read_json(run: Path, name: str) -> Any:
    """Read one of a run's JSON files; raise RunError where it is missing or damaged."""
    try:
        return json.loads((run / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(run, name) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{run / name} cannot be read ({error})") from error


def write_checkpoint(run: Path, state: TrainingState) -> None:
    """Replace the checkpoint by `state`, atomically."""
    metadata = {_KEY: json.dumps(dict(state.facts))}
    write_bytes(run / "checkpoint.safetensors", safetensors_bytes(dict(state.tensors), metadata))


def read_checkpoint(run: Path) -> TrainingState | None:
    """Return the state to go on from; None where no epoch was over."""
    path = run / "checkpoint.safetensors"
    if not path.exists():
        return None
    tensors, facts = read_tensors(path)
    return TrainingState(tensors, facts)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the facts of one of a run's safetensors files.

    Raises:
        RunError: it is missing, damaged or another program's.
    """
    if not path.exists():
        raise _missing(path.parent, path.name)
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in sorted(file.keys())}, facts
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({error}); it is damaged or no file of visionadapt's") from error


def save(
    run: str | Path,
    model: Classifier,
    prepare: Preprocessing,
    *,
    plan: Plan | None = None,
    weights: str = "pretrained",
    seed: int = 0,
    golden: Iterable[tuple[str, bytes]] = (),
    calibration: Calibration | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a run folder of what `load` needs: model, classes, preprocessing, plan and golden pictures.

    Args:
        run: the folder to make.
        model: the trained classifier.
        prepare: its preprocessing.
        plan: how it computes; decided anew by default.
        weights, seed: what the backbone was loaded with.
        golden: names and bytes of a few picture files, whose pixels and logits are kept for comparison.
        calibration: what validation pictures taught about its probabilities; by default they are taken as they are.
        overwrite: whether a run folder may be replaced.

    Returns:
        The folder.

    Raises:
        RunError: the folder is there already, or cannot be written.
    """
    run = Path(run)
    facts = {**_identity(model), "weights": weights, "seed": seed, "preprocessing": prepare.to_json()}
    create(run, {"config.json": facts}, overwrite)
    frozen = FrozenPart(model)
    write_trained(
        run,
        Pipeline(frozen, prepare, plan or plan_for(frozen)),
        weights,
        seed,
        (GoldenPicture(name, data) for name, data in golden),
        calibration,
    )
    return run


def write_trained(
    run: Path,
    pipeline: Pipeline,
    weights: str,
    seed: int,
    golden: Iterable[GoldenPicture],
    calibration: Calibration | None = None,
) -> None:
    """Write what `load` needs into a run folder that is there; other arguments as in `save`."""
    model, prepare = pipeline.model, pipeline.prepare
    facts = {**_identity(model), "weights": weights, "seed": seed, "preprocessing": prepare.to_json()}
    write_json(run / "plan.json", pipeline.plan.to_json())
    write_json(run / "classes.json", list(model.classes))
    write_json(run / "preprocess.json", prepare.to_json())
    tensors = {name: tensor.cpu().contiguous() for name, tensor in trained_tensors(model).items()}
    model.eval()
    _write_golden(run, Predictor(pipeline), golden)
    if calibration is not None:
        write_calibration(run, calibration)
    write_bytes(run / "model.safetensors", safetensors_bytes(tensors, {_KEY: json.dumps(facts)}))


def write_calibration(run: Path, calibration: Calibration) -> None:
    """Write `calibration.json`, and the tensors of its distance beside it."""
    if calibration.distance is not None:
        tensors = calibration.distance.tensors()
        write_bytes(run / "calibration.safetensors", safetensors_bytes(tensors, {_KEY: "{}"}))
    write_json(run / "calibration.json", calibration.to_json())


def read_calibration(run: Path) -> Calibration:
    """Return what `write_calibration` wrote; where there is none, one that takes the logits as they are.

    Raises:
        RunError: it is damaged.
    """
    if not (run / "calibration.json").exists():
        return Calibration()
    try:
        distance = None
        if (run / "calibration.safetensors").exists():
            distance = FeatureDistance.from_tensors(read_tensors(run / "calibration.safetensors")[0])
        return Calibration.from_json(read_json(run, "calibration.json"), distance)
    except (KeyError, TypeError) as error:
        raise RunError(f"{run / 'calibration.json'} is not this version's ({error} is wrong); train again") from error


def load(
    run: str | Path,
    device: str = "auto",
    *,
    weights: str | Path | None = None,
    adapter: AdapterSettings | None = None,
) -> Predictor:
    """Return the trained classifier of a run folder, ready to predict. No code that the folder names is imported.

    Args:
        run: the folder.
        device: where to compute.
        weights: the backbone's weights, where they lie elsewhere than in training.
        adapter: the adapter's settings, where they are of a class of your own.

    Raises:
        RunError: it is no run folder, is damaged, or the backbone's weights are not those of the training.
    """
    run = Path(run)
    read_json(run, "classes.json")
    _, facts = read_tensors(run / "model.safetensors")
    model = classifier(
        facts["backbone"],
        facts["classes"],
        adapter or facts["adapter"],
        weights if weights is not None else facts["weights"],
        facts["image_size"],
        facts["seed"],
        facts.get("task", "single"),
    )
    return load_into(FrozenPart(model), run, device)


def load_into(frozen: FrozenPart, run: str | Path, device: str = "auto") -> Predictor:
    """Return what `load` returns, with a classifier that was built in the same way; its trained tensors are replaced.

    Raises:
        RunError: as `load` does.
    """
    run = Path(run)
    model = frozen.model
    restore(model, run)
    _, facts = read_tensors(run / "model.safetensors")
    plan = Plan.from_json(read_json(run, "plan.json")).on(device)
    prepare = Preprocessing.from_json(facts["preprocessing"])
    calibration = read_calibration(run).of(model.task, model.thresholds)
    model.to(plan.device).eval()
    return Predictor(Pipeline(frozen, prepare, plan), calibration)


def restore(model: Classifier, run: str | Path) -> None:
    """Copy a run's adapter layers and head into a classifier that was built in the same way.

    Raises:
        RunError: the run was trained on another backbone, other weights, another input size, another adapter or other
            classes; the message names the first difference.
    """
    tensors, facts = read_tensors(Path(run) / "model.safetensors")
    facts = {"task": "single", **facts}
    for name, own in _identity(model).items():
        if facts.get(name) != own:
            hint = "; name the right file with --weights" if name == "weights_hash" else ""
            raise RunError(f"{run} was trained with {name} {facts.get(name)!r}, and this model has {own!r}{hint}")
    load_trained_tensors(model, tensors)


def _identity(model: Classifier) -> dict[str, Any]:
    """What must be the same wherever the trained tensors go."""
    return {
        "backbone": model.backbone.name,
        "weights_hash": model.backbone.weights_hash,
        "image_size": model.backbone.config.image_size,
        "adapter": spec.format(model.adapter, "adapter") if model.adapter is not None else "none",
        "classes": list(model.classes),
        "task": model.task,
    }


def golden_difference(run: str | Path, predictor: Predictor) -> float:
    """Largest difference between the golden pictures' stored logits and those that `predictor` gives them now."""
    tensors, _ = read_tensors(Path(run) / "golden.safetensors")
    names = sorted(name for name in tensors if name.startswith("file_"))
    if not names:
        return 0.0
    pixels = [predictor.prepare.host(tensors[name].numpy().tobytes()) for name in names]
    return float((predictor.logits(torch.stack(pixels)) - tensors["logits"]).abs().max())


def _write_golden(run: Path, predictor: Predictor, golden: Iterable[GoldenPicture]) -> None:
    """Keep the first few pictures that can be read and are not too large."""
    kept: list[tuple[GoldenPicture, Tensor]] = []
    for picture in golden:
        if len(picture.data) <= GOLDEN_BYTES:
            with suppress(ImageError):  # it is in the ledger already
                kept.append((picture, predictor.prepare.host(picture.data)))
        if len(kept) == GOLDEN_PICTURES:
            break
    pixels = torch.stack([each for _, each in kept]) if kept else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    known = [picture.logits for picture, _ in kept if picture.logits is not None]
    logits = torch.stack(known) if known and len(known) == len(kept) else predictor.logits(pixels)
    files = {
        f"file_{place}": torch.frombuffer(bytearray(picture.data), dtype=torch.uint8)
        for place, (picture, _) in enumerate(kept)
    }
    facts = {_KEY: json.dumps({"names": [picture.name for picture, _ in kept]})}
    write_bytes(run / "golden.safetensors", safetensors_bytes({**files, "pixels": pixels, "logits": logits}, facts))


def _missing(run: Path, name: str) -> RunError:
    what = "has no trained model yet; --resume it" if is_run(run) else "is no run folder"
    return RunError(f"{run} {what} ({name} is missing)")
