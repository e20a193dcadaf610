"""Save a trained classifier with all that serving it needs into a run folder, and load it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from visionadapt.adapters import AdapterSettings
from visionadapt.adapters.attach import acting
from visionadapt.backbones.feature_sets import FeatureSet
from visionadapt.core import spec
from visionadapt.errors import AdapterError, RunError, UsageError
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.planning import plan_for
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier, classifier, load_trained_tensors, trained_tensors
from visionadapt.model.ensemble import ensemble_on
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.distance import FeatureDistance
from visionadapt.prediction.golden import GoldenImage, golden_images
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs.folder import create, read_json, write_sealed
from visionadapt.runs.hub import local_run
from visionadapt.runs.tensors import read_tensors, write_tensors
from visionadapt.sources.objects.urls import is_object_url
from visionadapt.system.storage import write_json

BUNDLED = "backbone.safetensors"
"""The backbone's weights, in a run folder that has them inside."""

_KINDS = {
    **dict.fromkeys(("backbone", "weights_hash", "features", "adapter", "weights", "task"), str),
    **dict.fromkeys(("image_size", "seed", "channels"), int),
    **dict.fromkeys(("classes", "preprocessing", "members", "member_features"), list),
}
"""The types of the facts in `model.safetensors`."""


def save(
    run: str | Path,
    model: Classifier | Predictor,
    prepare: Preprocessing | None = None,
    *,
    weights: str | None = None,
    seed: int | None = None,
    golden: Iterable[tuple[str, bytes]] = (),
    calibration: Calibration | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a run folder with everything that `load` needs.

    Plan, weights and seed are those that the classifier was trained and loaded with. A classifier that `fit` did not
    train gets a plan for the device that it is on.

    Args:
        run: the folder to make.
        model: the trained classifier; or a predictor, whose preprocessing, calibration and golden images are saved too.
        prepare: the preprocessing, for a classifier only.
        weights: what `load` loads the backbone's weights from: `pretrained`, `none` or a file; by default what this
            one was loaded from.
        seed: the seed of weights that are `none`; by default the one of this classifier.
        golden: names and bytes of a few image files; their pixels and logits are saved for comparison.
        calibration: from `calibrate`; without one, probabilities are taken as they are.
        overwrite: whether to replace a run folder.

    Returns:
        The folder.

    Raises:
        UsageError: there is no preprocessing, or one too many.
        RunError: the folder exists already, or cannot be written.
        AdapterError: the adapters are not those that the classifier was made with.
    """
    if isinstance(model, Predictor) != (prepare is None):
        raise UsageError("save takes a classifier and its preprocessing, or a predictor, which has its own")
    if isinstance(model, Predictor):
        predictor = model
    else:
        assert prepare is not None
        frozen = FrozenPart(model.eval())
        predictor = Predictor(Pipeline(frozen, prepare, plan_for(frozen)))
    _require_own_adapters(predictor.classifier)
    run, pipeline = Path(run), predictor.pipeline
    given = {"weights": weights, "seed": seed}
    facts = {**_facts(pipeline), **{name: value for name, value in given.items() if value is not None}}
    images = golden_images(pipeline, golden) or predictor.golden
    predictor = dataclasses.replace(predictor, calibration=calibration or predictor.calibration, golden=images)
    create(run, {"config.json": facts}, overwrite)
    write_trained(run, predictor, facts)
    return run


def write_trained(run: Path, predictor: Predictor, facts: dict[str, Any] | None = None) -> None:
    """Write what `load` needs into a run folder that exists, `model.safetensors` with its facts last."""
    model, pipeline = predictor.classifier, predictor.pipeline
    write_sealed(run / "plan.json", plan_for(pipeline.frozen).to_json())
    write_json(run / "classes.json", list(model.classes))
    write_json(run / "preprocess.json", pipeline.prepare.to_json())
    tensors = {name: tensor.cpu().contiguous() for name, tensor in trained_tensors(model).items()}
    _write_golden(run, predictor)
    if predictor.calibration.of(model.task, model.thresholds) != Calibration().of(model.task, model.thresholds):
        write_calibration(run, predictor.calibration)
    write_tensors(run / "model.safetensors", tensors, facts or _facts(pipeline))


def _require_own_adapters(model: Classifier) -> None:
    """Refuse a classifier that `load` could not make again, since its adapters were changed by hand."""
    if acting(model.backbone) != model.acting:
        made = ", ".join(model.adapter_specs)
        raise AdapterError(
            f"the adapters of this classifier are not those that it was made with ({made}); switch them on, or detach "
            f"those that you attached, before you save it"
        )


def write_calibration(run: Path, calibration: Calibration) -> None:
    """Write `calibration.json`, and the tensors of the distance to `calibration.safetensors`."""
    if calibration.distance is not None:
        write_tensors(run / "calibration.safetensors", calibration.distance.tensors(), {})
    write_sealed(run / "calibration.json", calibration.to_json())


def read_calibration(run: Path) -> Calibration:
    """Return what `write_calibration` wrote, or one that changes no logits; raise RunError if it is damaged."""
    if not (run / "calibration.json").exists():
        return Calibration()
    try:
        distance = None
        if (run / "calibration.safetensors").exists():
            distance = FeatureDistance.from_tensors(read_tensors(run / "calibration.safetensors")[0])
        return Calibration.from_json(read_json(run, "calibration.json"), distance)
    except (KeyError, TypeError, ValueError) as error:
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
        run: the folder; or `hf://ORG/NAME`, which contacts the Hugging Face hub.
        device: where to compute.
        weights: the backbone's weights, if they are elsewhere than in training, and not in the folder.
        adapter: the adapter's settings, if they are of a custom class.

    Raises:
        RunError: it is no run folder, is damaged, or the backbone's weights are not those of the training.
    """
    run = local_run(run)
    _, facts = read_model(run)
    model = classifier(
        facts["backbone"],
        facts["classes"],
        adapter or facts["adapter"],
        weights if weights is not None else weights_of(run),
        facts["image_size"],
        facts["seed"],
        facts["task"],
        facts["channels"],
    )
    model.use_features(facts["features"])
    if facts["members"]:
        members = [None if text == "none" else spec.parse(text, "adapter") for text in facts["members"]]
        features = facts["member_features"]
        model = ensemble_on(model.backbone, model.classes, members, model.task, model.seed, model.weights, features)
    return load_into(FrozenPart(model), run, device)


def weights_of(run: Path) -> str | Path:
    """Return where a run's backbone weights are: in the run folder, if it is a bundle, or where training found them.

    Raises:
        RunError: they were in a file that is no longer there.
    """
    if (run / BUNDLED).is_file():
        return run / BUNDLED
    _, facts = read_model(run)
    stored: str = facts["weights"]
    if is_object_url(stored):
        raise RunError(f"{run} needs the weights that were at {stored}; to fetch them give --weights {stored}")
    if stored not in {"pretrained", "none"} and not Path(stored).is_file():
        raise RunError(
            f"{run} needs the weights of {facts['backbone']} that were in {stored}, which is not there; name the file "
            f"with --weights: the SHA-256 of its tensors, as loaded, is {facts['weights_hash']}"
        )
    return stored


def load_into(frozen: FrozenPart, run: str | Path, device: str = "auto") -> Predictor:
    """Return what `load` returns, with a classifier that was built alike; its trained tensors are replaced."""
    run, model = Path(run), frozen.model
    facts = restore(model, run)
    plan = read_plan(run)
    model.plan = plan.to_json()
    plan = plan.on(device)
    model.to(plan.device).eval()
    prepare = Preprocessing.from_json(facts["preprocessing"])
    calibration = read_calibration(run).of(model.task, model.thresholds)
    return Predictor(Pipeline(frozen, prepare, plan), calibration, _read_golden(run))


def read_plan(run: Path) -> Plan:
    """Return the plan of a run; raise RunError if `plan.json` is missing, damaged or not this version's."""
    try:
        return Plan.from_json(read_json(run, "plan.json"))
    except RunError as error:
        raise error if str(run) in str(error) else RunError(f"{run}: {error}") from error


def read_model(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read `model.safetensors`; raise RunError if a fact is missing or of another type, or the JSON files differ."""
    stored = {"classes": read_json(run, "classes.json", list)}
    path = run / "model.safetensors"
    tensors, facts = read_tensors(path)
    facts = {"task": "single", "channels": 3, "features": "last", "members": [], **facts}
    count = len(facts["members"]) if isinstance(facts["members"], list) else 0
    facts = {"member_features": ["last"] * count, **facts}
    for name, kind in _KINDS.items():
        if type(facts.get(name)) is not kind:
            raise RunError(f"{path} has no {name} of type {kind.__name__}; restore it, or train again")
    known = {"task": ("single", "multilabel"), "features": get_args(FeatureSet)}
    texts = (*facts["classes"], *facts["members"])
    strange = any(facts[name] not in known[name] for name in known)
    strange |= any(features not in known["features"] for features in facts["member_features"])
    strange |= len(facts["member_features"]) != len(facts["members"])
    if not all(isinstance(text, str) for text in texts) or strange:
        raise RunError(
            f"{path} has classes, a task or features that are not this version's; restore it, or train again"
        )
    if (run / "preprocess.json").exists():
        stored["preprocessing"] = read_json(run, "preprocess.json", list)
    for name, value in stored.items():
        if value != facts[name]:
            file = run / {"classes": "classes.json", "preprocessing": "preprocess.json"}[name]
            raise RunError(f"{file} is not what {path.name} was trained with; restore it, or train again")
    return tensors, facts


def restore(model: Classifier, run: str | Path) -> dict[str, Any]:
    """Copy a run's adapter layers and head into a classifier that was built alike; return the facts stored with them.

    Raise RunError if the run was trained with another backbone, other weights, another input size, another adapter,
    other classes or another task; the message names the first difference.
    """
    tensors, facts = read_model(Path(run))
    for name, own in _identity(model).items():
        if facts.get(name) != own:
            hint = "; name the right file with --weights" if name == "weights_hash" else ""
            raise RunError(f"{run} was trained with {name} {facts.get(name)!r}, and this model has {own!r}{hint}")
    load_trained_tensors(model, tensors)
    return facts


def _facts(pipeline: Pipeline) -> dict[str, Any]:
    model = pipeline.model
    loaded = {"weights": model.weights, "seed": model.seed}
    return {**_identity(model), **loaded, "preprocessing": pipeline.prepare.to_json()}


def _identity(model: Classifier) -> dict[str, Any]:
    """Return what must be the same wherever the trained tensors are loaded."""
    return {
        "backbone": model.backbone.name,
        "weights_hash": model.backbone.weights_hash,
        "image_size": model.backbone.config.image_size,
        "channels": model.backbone.config.channels,
        "features": model.backbone.feature_set,
        "adapter": "none" if model.members else model.adapter_specs[0],
        "members": list(model.adapter_specs) if model.members else [],
        "member_features": list(model.backbone.member_features),
        "classes": list(model.classes),
        "task": model.task,
    }


def _write_golden(run: Path, predictor: Predictor) -> None:
    images = predictor.golden
    files = [torch.frombuffer(bytearray(image.data), dtype=torch.uint8) for image in images]
    pixels, logits = torch.empty(0, 3, 0, 0, dtype=torch.uint8), torch.empty(0, len(predictor.classes))
    if images:
        pixels, logits = (torch.stack([getattr(image, name) for image in images]) for name in ("pixels", "logits"))
    tensors = {**{f"file_{place}": data for place, data in enumerate(files)}, "pixels": pixels, "logits": logits}
    write_tensors(run / "golden.safetensors", tensors, {"names": [image.name for image in images]})


def _read_golden(run: Path) -> tuple[GoldenImage, ...]:
    path = run / "golden.safetensors"
    if not path.exists():
        return ()
    tensors, facts = read_tensors(path)
    try:
        files = [tensors[f"file_{place}"].numpy().tobytes() for place in range(len(facts["names"]))]
        rows = zip(facts["names"], files, tensors["pixels"], tensors["logits"], strict=True)
        return tuple(GoldenImage(*row) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not this version's ({error} is wrong); train again") from error
