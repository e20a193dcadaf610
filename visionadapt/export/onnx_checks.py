"""Check the ONNX files of an export on golden images, stage by stage, in ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import helper

from visionadapt.errors import RunError
from visionadapt.export.check import Check, OpenedModel, model_check, not_run, prepared_check
from visionadapt.export.folder import MODELS, PREPARED_MODELS, STAGES
from visionadapt.export.golden import Array
from visionadapt.export.onnx_model import IMAGE, PREPARED, digests
from visionadapt.export.reading import ExportedFolder
from visionadapt.export.reduced import FILES, probabilities
from visionadapt.prediction.predictor import Predictor

_REDUCED_TOLERANCE = 0.02
"""How much further the probabilities of a reduced model may be from the exact ones on another machine."""


def onnx_checks(
    exported: ExportedFolder, images: list[Array], wanted: Mapping[str, Array], predictor: Predictor | None
) -> Iterator[Check]:
    """Check every ONNX file of an export on golden images.

    Args:
        exported: the folder.
        images: golden images as the library decodes them, uint8 [H, W, C].
        wanted: what every stage should give for them.
        predictor: the run that was exported, where it is known.

    Raises:
        RunError: a file is no sound model.
    """
    model = read_onnx(exported.path / MODELS["onnx"])
    found = _stages(model, [{IMAGE: image[None]} for image in images])
    yield model_check(exported, OpenedModel(_class_names(model), digests(model), found), images, wanted, predictor)
    if exported.has(PREPARED_MODELS["onnx"]):
        model = read_onnx(exported.path / PREPARED_MODELS["onnx"])
        yield prepared_check(exported, _stages(model, [{PREPARED: wanted["prepared"]}]), wanted)
    for name in FILES.values():
        if exported.has(name):
            yield _reduced(exported, name, images, wanted)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Return a model, parsed but not run.

    Raises:
        RunError: it is no ONNX file, reads other files, or needs operators from outside of ONNX.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}); export again") from error
    if "external" in _locations(model):
        raise RunError(f"{path} reads other files, which no export does; do not use it")
    domains = {each.domain for each in model.opset_import} - {"", "ai.onnx"}
    foreign = domains | {each.domain for each in model.functions}
    if foreign:
        raise RunError(f"{path} needs operators of {', '.join(sorted(foreign))}; do not use it")
    return model


def _class_names(model: onnx.ModelProto) -> Any:
    stored = next((each.value for each in model.metadata_props if each.key == "class_names"), "[]")
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):
        return []


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
        raise not_run(error) from error
    return {name: np.concatenate(each) for name, each in zip(own, zip(*rows, strict=True), strict=True)}


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise not_run(error) from error


def _reduced(exported: ExportedFolder, name: str, images: list[Array], wanted: Mapping[str, Array]) -> Check:
    """Compare the probabilities of a reduced model with the exact ones, within what the export measured."""
    stored = exported.manifest.get("reduced")
    reduction = name.partition(".")[0]
    facts = stored.get(reduction) if isinstance(stored, dict) else None
    most = facts.get("golden_largest") if isinstance(facts, dict) else None
    if not isinstance(most, float) or not 0 <= most <= 1:
        return Check(name, (f"the manifest does not say what {reduction} costs",))
    try:
        found = probabilities(read_onnx(exported.path / name), images)
    except RunError:
        raise
    except Exception as error:
        raise not_run(error) from error
    if found.shape != wanted["probabilities"].shape:
        return Check(name, (f"probabilities have the shape {list(found.shape)}",))
    apart = float(np.abs(found - wanted["probabilities"]).max(initial=0))
    text = f"probabilities differ by up to {apart:.2g} from those in float32"
    if not apart <= most + _REDUCED_TOLERANCE:
        return Check(name, (f"{text}, and {most:.2g} at the export",))
    return Check(name, notes=(text,))


def _locations(message: Any) -> set[str]:
    """Return where the tensors of a model, of its subgraphs and functions have their data: `default` or `external`."""
    found = set()
    if isinstance(message, onnx.TensorProto):
        return {"external" if message.data_location == onnx.TensorProto.EXTERNAL else "default"}
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_MESSAGE:
            for inner in value if isinstance(value, _Repeated) else [value]:
                found |= _locations(inner)
    return found


_Repeated = type(onnx.GraphProto().node)
