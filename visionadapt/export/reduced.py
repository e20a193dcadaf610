"""Reduce the backbone of an exported model to float16 or int8, and measure what it costs; the rest stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from visionadapt.errors import UsageError
from visionadapt.export.folder import Reduction
from visionadapt.export.golden import Array
from visionadapt.export.onnx_model import IMAGE, PREPARED
from visionadapt.system.text import percent

FILES: Mapping[Reduction, str] = {"float16": "float16.onnx", "int8": "int8.onnx"}
"""The file of each number format in an exported folder."""

_LAST = "features"
_LEAST_BYTES = 1024
_LARGEST = 65504.0


def reduced_model(model: onnx.ModelProto, reduction: Reduction, images: Sequence[Array]) -> onnx.ModelProto:
    """Return a model of `onnx_model` whose backbone computes in another number format.

    Args:
        model: the model; it does not change.
        reduction: float16 for weights that are stored in half the bytes, and compute in float32; int8 for weights and
            activations, with scales per channel (static quantization).
        images: uint8 [H, W, C], from which int8 learns the ranges of all tensors.

    Raises:
        UsageError: the libraries cannot convert this model.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for number, node in enumerate(copied.graph.node):
        node.name = node.name or f"node_{number}"
    backbone = _backbone(copied.graph)
    try:
        return _float16(copied, backbone) if reduction == "float16" else _int8(copied, backbone, images)
    except Exception as error:  # whatever fails in the libraries is told in one line
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"this model cannot be reduced to {reduction} ({type(error).__name__}: {reason})") from error


def _backbone(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes between the prepared pixels and the features."""
    wanted, found = {_LAST}, set()
    for node in reversed(graph.node):
        if PREPARED in node.output:
            continue
        if wanted & {*node.output}:
            found.add(node.name)
            wanted |= {*node.input} - {PREPARED}
    return found


def _float16(model: onnx.ModelProto, backbone: set[str]) -> onnx.ModelProto:
    """Store the backbone's weights in float16; they are converted when the model is loaded, and compute in float32."""
    graph = model.graph
    uses = {name for node in graph.node if node.name not in backbone for name in node.input}
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or tensor.name in uses or tensor.ByteSize() < _LEAST_BYTES:
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).clip(-_LARGEST, _LARGEST).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}/float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}/cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _int8(model: onnx.ModelProto, backbone: set[str], images: Sequence[Array]) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[Array] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._left, None)
            return None if image is None else {IMAGE: image[None]}

    with TemporaryDirectory() as folder, _without_advice():
        written = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            written,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # or CPUs without VNNI saturate
            nodes_to_quantize=sorted(backbone),
        )
        return onnx.load(written)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence advice that the quantizer logs for its own callers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class Cost:
    """What a reduced model loses, on labelled images or on golden ones.

    Attributes:
        images: how many.
        same: share of them with the same most probable class as in float32.
        accuracy: share of correct labels; None without labels, or where an image may have several.
        exact_accuracy: the same in float32.
        largest: largest difference of a probability.
        megabytes: size of the file, and `exact_megabytes` in float32.
    """

    images: int
    same: float
    accuracy: float | None
    exact_accuracy: float | None
    largest: float
    megabytes: float
    exact_megabytes: float

    def __str__(self) -> str:
        told = f"the same class as in float32 for {percent(self.same)} of {self.images} images"
        if self.accuracy is not None and self.exact_accuracy is not None:
            told = f"accuracy {percent(self.accuracy)} instead of {percent(self.exact_accuracy)}, {told}"
        size = f"{self.megabytes:.1f} MB instead of {self.exact_megabytes:.1f}"
        return f"{told}; probabilities differ by up to {self.largest:.2g}; {size}"


def cost(
    exact: onnx.ModelProto, reduced: onnx.ModelProto, images: Sequence[Array], labels: Sequence[int] | None
) -> Cost:
    """Measure a reduced model on images uint8 [H, W, C], with their class indices where these are known."""
    models = {"exact": exact, "reduced": reduced}
    found = {name: probabilities(model, images) for name, model in models.items()}
    chosen = {name: values.argmax(1) for name, values in found.items()}
    accuracy = {name: None if labels is None else float((each == labels).mean()) for name, each in chosen.items()}
    return Cost(
        images=len(images),
        same=float((chosen["exact"] == chosen["reduced"]).mean()),
        accuracy=accuracy["reduced"],
        exact_accuracy=accuracy["exact"],
        largest=float(np.abs(found["exact"] - found["reduced"]).max()),
        megabytes=reduced.ByteSize() / 1e6,
        exact_megabytes=exact.ByteSize() / 1e6,
    )


def probabilities(model: onnx.ModelProto, images: Sequence[Array]) -> Array:
    """Run a model on images uint8 [H, W, C] one by one; return the probabilities float32 [N, C]."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["probabilities"], {IMAGE: image[None]})[0] for image in images])
