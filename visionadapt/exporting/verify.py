"""`verify`: send golden images through every path from a file to a label, and say where and by how much they differ."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper

from visionadapt.errors import ImageError, RunError
from visionadapt.exporting.diagnosis import TOLERANCES, cause, cause_of_resizing, difference, without_ties
from visionadapt.exporting.examples import examples
from visionadapt.exporting.export import MODEL, PREPARED_MODEL, digests, is_export
from visionadapt.exporting.golden import Array, decoded, decoded_by_pillow, expected, reference
from visionadapt.exporting.onnx_model import IMAGE, PREPARED, STAGES
from visionadapt.exporting.reading import ExportedFolder, open_export
from visionadapt.exporting.reduced import FILES, probabilities
from visionadapt.prediction.predictor import Predictor
from visionadapt.run_folder import saved
from visionadapt.system.storage import file_sha256

_REDUCED_PRECISION = 0.05
"""Largest difference of probabilities that a run computes in 16 bits from those in float32."""
_REDUCED_TOLERANCE = 0.02
"""How much further the probabilities of a reduced model may be from the exact ones on another machine."""
_EXAMPLE_SECONDS = 300
_MOST_NAMED = 3


@dataclass(frozen=True)
class Check:
    """One path of the golden images.

    Attributes:
        path: what was checked: `files`, `training`, `predict`, `model.onnx`, `prepared.onnx`,
            `float16.onnx`, `int8.onnx` or `example.py`.
        problems: what is wrong, a line each; none if the path agrees.
        notes: what else is worth knowing.
    """

    path: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether the path agrees."""
        return not self.problems


def verify(folder: str | Path, run: str | Path | None = None, *, weights: str | Path | None = None) -> list[Check]:
    """Check a run folder, or an exported folder against its manifest, and against its run where that is given.

    Without its run, an export can only be compared with what it says of itself.

    Args:
        folder: run folder, or folder of `export`.
        run: the run folder that was exported.
        weights: the backbone's weights, if they are elsewhere than in training.

    Raises:
        RunError: the folder is neither, is damaged, or names files outside of itself.
    """
    if not is_export(Path(folder)):
        return _run_checks(saved.load(folder, "cpu", weights=weights))
    exported = open_export(folder)
    golden, wanted = exported.golden(), exported.expected()
    problems, checks, predictor = exported.changed_files(), [], None
    if run is not None:
        predictor = saved.load(run, "cpu", weights=weights)
        problems += _other_run(exported, Path(run), predictor)
        exported = dataclasses.replace(exported, prepare=predictor.prepare)
        checks = _run_checks(predictor)
        wanted = expected(reference(predictor), golden.values())
    checks.insert(0, Check("files", tuple(problems[:_MOST_NAMED])))
    images = [decoded(exported.prepare, data) for data in golden.values()]
    wanted["prepared"] = exported.prepare.device(torch.from_numpy(wanted["resized"])).numpy()
    checks.append(_model(exported, images, wanted, predictor))
    if exported.has(PREPARED_MODEL):
        checks.append(_prepared(exported, wanted))
    checks += [_reduced(exported, name, images, wanted) for name in FILES.values() if exported.has(name)]
    if images and examples(images[0].shape[2]):
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
    reduced = {plan.precision, plan.prefix_precision} != {"float32"}
    least = _REDUCED_PRECISION if reduced else TOLERANCES["probabilities"]
    training = float(np.abs(own[0] - own[1]).max())
    proba = predictor.predict_proba([image.data for image in golden])
    exact = expected(reference(predictor), [image.data for image in golden])["probabilities"]
    apart = float(np.abs(proba - exact).max())
    return [_compared("training", training, least), _compared("predict", apart, least)]


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


def _model(
    exported: ExportedFolder, images: list[Array], wanted: Mapping[str, Array], predictor: Predictor | None
) -> Check:
    """Run the model on the golden images, and name the first stage that differs."""
    model = exported.model()
    problems = _names(exported, model, predictor)
    changed = _changed(exported, model)
    missing = [name for name in STAGES if name not in _tensors(model)]
    if missing:
        return Check(MODEL, (*problems, f"its graph has no {missing[0]}, so no export made it"))
    found = _stages(model, [{IMAGE: image[None]} for image in images])
    wanted = without_ties(found, wanted, exported.threshold)
    prepare = exported.prepare
    for stage in STAGES:
        wrong = difference(stage, found[stage], wanted[stage])
        if wrong is None:
            continue
        if stage == "resized":
            why = cause_of_resizing(images, found[stage], wanted[stage], prepare)
        else:
            why = cause(stage, found, wanted, prepare)
        problems.append(f"{wrong}: {why}" if why else wrong)
        break
    return Check(MODEL, (*problems, *changed))


def _names(exported: ExportedFolder, model: onnx.ModelProto, predictor: Predictor | None) -> list[str]:
    """Compare the class names in the model with those of the manifest, and of the run."""
    stored = next((each.value for each in model.metadata_props if each.key == "class_names"), "[]")
    try:
        names = json.loads(stored)
    except (ValueError, RecursionError):
        names = []
    names = names if isinstance(names, list) else []
    for where, classes in (("manifest", exported.classes), ("run", predictor.classes if predictor else None)):
        if classes is not None and names != list(classes):
            place = next((at for at, pair in enumerate(zip(names, classes, strict=False)) if pair[0] != pair[1]), None)
            if place is None:
                return [f"the class names are {len(names)} instead of the {len(classes)} of the {where}"]
            return [
                f"the class names are permuted: {place} is {names[place]!r} instead of {classes[place]!r} ({where})"
            ]
    return []


def _changed(exported: ExportedFolder, model: onnx.ModelProto) -> list[str]:
    stored, now = exported.manifest["weights"], digests(model)
    changed = [name for name in now if stored.get(name) != now[name]]
    more = f" and {len(changed) - _MOST_NAMED} others" if len(changed) > _MOST_NAMED else ""
    return [f"constants differ from the manifest's: {', '.join(changed[:_MOST_NAMED])}{more}"] if changed else []


def _tensors(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output}


def _stages(model: onnx.ModelProto, feeds: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Run a model on each feed; return the results of every stage that it has, N images first."""
    own = [name for name in STAGES if name in _tensors(model)]
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    kinds = {"resized": onnx.TensorProto.UINT8, "prepared": onnx.TensorProto.FLOAT, "logits": onnx.TensorProto.FLOAT}
    outputs = {each.name for each in opened.graph.output}
    opened.graph.output.extend(
        helper.make_tensor_value_info(name, kinds[name], None) for name in own if name not in outputs
    )
    session = _session(opened)
    try:
        rows = [session.run(own, dict(feed)) for feed in feeds]
    except Exception as error:
        raise _not_run(error) from error
    return {name: np.concatenate(each) for name, each in zip(own, zip(*rows, strict=True), strict=True)}


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _not_run(error) from error


def _not_run(error: Exception) -> RunError:
    return RunError(f"the model cannot be run ({(str(error).splitlines() or [''])[0]}); export again")


def _prepared(exported: ExportedFolder, wanted: Mapping[str, Array]) -> Check:
    found = _stages(exported.model(PREPARED_MODEL), [{PREPARED: wanted["prepared"]}])
    wanted = without_ties(found, wanted, exported.threshold)
    wrong = (difference(stage, found[stage], wanted[stage]) for stage in STAGES if stage in found)
    return Check(PREPARED_MODEL, tuple(filter(None, wrong))[:1])


def _reduced(exported: ExportedFolder, name: str, images: list[Array], wanted: Mapping[str, Array]) -> Check:
    """Compare the probabilities of a reduced model with the exact ones, within what the export measured."""
    stored = exported.manifest.get("reduced")
    reduction = name.partition(".")[0]
    facts = stored.get(reduction) if isinstance(stored, dict) else None
    most = facts.get("golden_largest") if isinstance(facts, dict) else None
    if not isinstance(most, float) or not 0 <= most <= 1:
        return Check(name, (f"the manifest does not say what {reduction} costs",))
    try:
        found = probabilities(exported.model(name), images)
    except RunError:
        raise
    except Exception as error:
        raise _not_run(error) from error
    if found.shape != wanted["probabilities"].shape:
        return Check(name, (f"probabilities have the shape {list(found.shape)}",))
    apart = float(np.abs(found - wanted["probabilities"]).max(initial=0))
    text = f"probabilities differ by up to {apart:.2g} from those in float32"
    if not apart <= most + _REDUCED_TOLERANCE:
        return Check(name, (f"{text}, and {most:.2g} at the export",))
    return Check(name, notes=(text,))


def _example(
    exported: ExportedFolder, golden: Mapping[str, bytes], images: list[Array], wanted: Mapping[str, Array]
) -> Check:
    """Run the example as a process of its own, if it is the one that this library writes, on sound golden images."""
    name = "example.py"
    path = exported.path / name
    if not path.is_file() or path.read_bytes() != examples(images[0].shape[2])[name].encode():
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
