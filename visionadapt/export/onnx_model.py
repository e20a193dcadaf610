"""Build one ONNX model of a trained classifier: from images of any size to calibrated answers.

```
image  uint8 [N, H, W, C] ─ resize ─ resized  uint8 [N, C, S, S] ─ normalise ─ prepared  float32 ─ classifier ─ answers
```

A second model begins at `prepared`, for programs that resize and normalise themselves.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from visionadapt.errors import UsageError
from visionadapt.export.folder import array_digest
from visionadapt.export.onnx_nodes import Nodes
from visionadapt.export.onnx_resize import resize_nodes
from visionadapt.export.served import ANSWERS, HAS_CLASS, ServedClassifier, not_traced
from visionadapt.images import NormalizeAdapter, Preprocessing
from visionadapt.prediction.predictor import Predictor

OPSET = 18
IR_VERSION = 10
"""Of ONNX 1.16, which runtimes from 2024 on read."""
IMAGE, RESIZED, PREPARED = "image", "resized", "prepared"

_INSIDE = ("logits",)
"""Answers that stay inside of the graph."""

_MOST_BYTES = 2**31 - 2**20
"""A file of Protocol Buffers holds less than 2 GiB."""


def onnx_model(predictor: Predictor, *, merge: bool = True) -> tuple[onnx.ModelProto, bool]:
    """Return the ONNX model of a predictor on the CPU, in float32, and whether its adapters are merged.

    With `merge`, they are wherever they can be.

    Raises:
        UsageError: the preprocessing or the classifier cannot be expressed, or the model is too large for one file.
    """
    example = torch.zeros_like(predictor.classifier.backbone.blank_pixels(2), dtype=torch.float32)
    channels = example.shape[1]
    nodes = _preprocessing(predictor.prepare, example.shape[1:])
    served = ServedClassifier(predictor.classifier, predictor.calibration, merge=merge)
    model = _traced(served, example)
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["images", "height", "width", channels])
    return _assembled(model, [image], nodes), served.merged


def prepared_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the part of a model of `onnx_model` from `PREPARED` on, with that as its input, float32 [N, C, S, S]."""
    graph = model.graph
    before = next(at for at, node in enumerate(graph.node) if node.output[0] == PREPARED) + 1
    used = {name for node in graph.node[before:] for name in node.input}
    size = next(each for each in graph.value_info if each.name == PREPARED)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:before]
    del part.graph.input[:]
    del part.graph.initializer[:]
    part.graph.input.append(size)
    part.graph.initializer.extend(each for each in graph.initializer if each.name in used)
    return part


def describe(model: onnx.ModelProto, facts: Mapping[str, Any]) -> None:
    """Store facts in a model's metadata, texts as they are and all others as JSON."""
    texts = {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}
    helper.set_model_props(model, texts)


def digests(model: onnx.ModelProto) -> dict[str, str]:
    """Return the SHA-256 of each constant of a graph by name, 64 hex digits."""
    tensors = ((each.name, numpy_helper.to_array(each)) for each in model.graph.initializer)
    return {name: array_digest(array) for name, array in tensors}


def _assembled(model: onnx.ModelProto, inputs: list[onnx.ValueInfoProto], nodes: Nodes) -> onnx.ModelProto:
    """Return a model with nodes before those of a traced one, whose extra outputs become tensors inside."""
    graph = model.graph
    outputs = {output.name: output for output in graph.output}
    names = [name for name in (*ANSWERS, HAS_CLASS) if name in outputs and name not in _INSIDE]
    made = helper.make_graph(
        [*nodes.nodes, *graph.node],
        "visionadapt",
        inputs,
        [outputs[name] for name in names],
        [*nodes.constants, *graph.initializer],
        value_info=[*graph.input, *(outputs[name] for name in _INSIDE), *graph.value_info],
    )
    opsets = [helper.make_opsetid("", OPSET), *(each for each in model.opset_import if each.domain)]
    return helper.make_model(
        made, opset_imports=opsets, ir_version=IR_VERSION, functions=model.functions, producer_name="visionadapt"
    )


def _preprocessing(prepare: Preprocessing, shape: torch.Size) -> Nodes:
    """Return the nodes from `IMAGE` to `PREPARED`."""
    if not prepare.serialisable:
        raise UsageError("a preprocessing with steps of one's own cannot be exported; save a run without them")
    if prepare.normalize is None:
        raise UsageError("a preprocessing without a NormalizeAdapter cannot be exported; it makes no floats")
    nodes = Nodes("prepare/")
    turned = nodes.Transpose(IMAGE, perm=[0, 3, 1, 2])
    if prepare.resize is None:
        resized = nodes.Reshape(turned, np.array([-1, *shape]), name=RESIZED)
    else:
        resized = resize_nodes(nodes, prepare.resize, turned, RESIZED, channels=shape[0])
    floats = nodes.Mul(nodes.cast(resized, np.float32), np.float32(1 / 255))
    mean, std = _moments(prepare.normalize, shape[0])
    nodes.Div(nodes.Sub(floats, mean), std, name=PREPARED)
    return nodes


def _moments(normalize: NormalizeAdapter, channels: int) -> list[np.ndarray[Any, Any]]:
    """Return mean and standard deviation of each channel, float32 [C, 1, 1]."""
    values = (np.array(value, np.float32) for value in (normalize.mean, normalize.std))
    return [np.broadcast_to(value, channels).reshape(channels, 1, 1) for value in values]


def _traced(served: ServedClassifier, example: torch.Tensor) -> onnx.ModelProto:
    """Return the classifier's own graph, from `PREPARED` to the answers."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                served,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[PREPARED],
                output_names=list(served.answers),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
            )
        assert program is not None
        model: onnx.ModelProto = program.model_proto
    except Exception as error:  # whatever fails in the exporter is told in one line
        raise not_traced("in ONNX", error) from error
    if model.ByteSize() > _MOST_BYTES:
        raise UsageError(
            f"one ONNX file holds 2 GiB, and this model has {model.ByteSize() / 2**30:.1f}; it needs a smaller backbone"
        )
    return model
