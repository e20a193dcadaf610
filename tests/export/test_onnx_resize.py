"""The resize inside a graph gives the library's own pixels, and those of Pillow but for its rounding."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from visionadapt.export.onnx_nodes import Nodes
from visionadapt.export.onnx_resize import resize_nodes
from visionadapt.images import ResizeAdapter

SHAPES = [(60, 80), (80, 61), (32, 32), (9, 13), (1, 1), (3, 150), (900, 20), (5, 1), (33, 32), (300, 200)]
"""Heights and widths: wide, tall, equal to the output, smaller, a single row, and too long to be scaled whole."""


def session(resize: ResizeAdapter) -> onnxruntime.InferenceSession:
    nodes = Nodes("prepare/")
    resize_nodes(nodes, resize, "image", "resized")
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])
    made = helper.make_tensor_value_info("resized", TensorProto.UINT8, ["N", 3, *resize.height_width])
    graph = helper.make_graph(nodes.nodes, "resize", [given], [made], nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("policy", "interpolation"),
    list(itertools.product(("crop", "squash", "letterbox"), ("bicubic", "bilinear", "nearest"))),
)
def test_the_graph_gives_the_pixels_of_the_adapter(policy: Any, interpolation: Any) -> None:
    random = np.random.default_rng(0)
    for size, share in ((32, 1.0), (32, 0.875), ((24, 40), 0.9)):
        resize = ResizeAdapter(size, policy=policy, interpolation=interpolation, crop_pct=share, fill=(1, 20, 250))
        graph = session(resize)
        for shape in SHAPES:
            images = random.integers(0, 256, (2, 3, *shape), dtype=np.uint8)
            own = np.asarray(resize(torch.from_numpy(images)))
            (found,) = graph.run(None, {"image": images})
            apart = np.abs(found.astype(int) - own.astype(int))
            # A letterboxed image that becomes one pixel wide is scaled in float32 by the adapter, as torch fails there.
            assert apart.max() <= (1 if 1 in resize.placement(*shape)[2:] else 0), (size, share, shape)


def test_it_is_as_close_to_pillow_as_torchvision_says_to_be() -> None:
    image = np.random.default_rng(1).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    (found,) = session(ResizeAdapter(40, policy="squash")).run(None, {"image": image.transpose(2, 0, 1)[None]})
    pillow = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    apart = np.abs(found[0].astype(int) - pillow.astype(int))
    assert apart.max() <= 1 and apart.mean() < 0.02
