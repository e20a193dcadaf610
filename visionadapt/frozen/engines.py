"""Engines that run the frozen part of a classifier. Their features agree within a tolerance; their speeds differ.

| engine | what it is | for |
|---|---|---|
| `eager` | the backbone itself, channels last, autocast | anything; it cannot fail |
| `folded` | its graph, batch norms folded in; on a CPU, activations fused too | backbones with batch norms |
| `compiled` | the folded graph through torch's compiler, weights as constants | long jobs: compiling takes its time |
| `onnx` | ONNX Runtime in float32 | long jobs, where the extra `onnx` is installed |
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, fx, nn

from visionadapt.errors import UsageError
from visionadapt.frozen.graphs import frozen_graph, fuse_activations
from visionadapt.frozen.precision import computing_in
from visionadapt.model.classifier import Classifier

Engine = Callable[[Tensor], dict[str, Tensor]]
"""Normalised pixels float32 [B, 3, S, S] → the named tensors [B, …] at a cut."""


@dataclass(frozen=True)
class Prefix:
    """What an engine is built for: to run the segments before `cut` on `batch` images per forward.

    `precision` is the number format of the output, and of the arithmetic (`onnx` computes in float32).
    """

    cut: int
    precision: str
    device: str
    batch: int
    threads: int

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as a torch dtype."""
        found: torch.dtype = getattr(torch, self.precision)
        return found


ONNX_SECONDS = 60.0
"""Seconds of frozen forwards from which exporting to ONNX can pay; it takes 3 to 10."""

COMPILE_SECONDS = 120.0
"""Seconds from which compiling can pay; it takes 10 to 40."""


def check_engine(name: str, device: str) -> None:
    """Raise UsageError if an engine requested by name is not available."""
    if name == "onnx" and not _has_onnx():
        raise UsageError("--engine onnx needs ONNX Runtime: pip install 'visionadapt[onnx]', or give --engine auto")
    if name == "onnx" and device != "cpu":
        raise UsageError(f"--engine onnx computes on the CPU, not on {device}; give --device cpu or --engine auto")


def engine_versions(name: str) -> dict[str, str]:
    """Return the versions of the libraries that decide the bits of this engine only."""
    return {"onnxruntime": version("onnxruntime")} if name == "onnx" and _has_onnx() else {}


def candidates(model: Classifier, prefix: Prefix, frozen_seconds: float = 0.0) -> list[str]:
    """List the engines worth trying, the likeliest first; slow-to-build ones only for a job of many seconds."""
    normed = prefix.cut > 0 and any(isinstance(module, nn.BatchNorm2d) for module in model.backbone.modules())
    names = ["folded", "eager"] if normed else ["eager"]
    if frozen_seconds > ONNX_SECONDS and prefix.device == "cpu" and _has_onnx():
        names.append("onnx")
    if frozen_seconds > COMPILE_SECONDS:
        names.append("compiled")
    return names


def _eager(model: Classifier, prefix: Prefix) -> Engine:
    def run(pixels: Tensor) -> dict[str, Tensor]:
        with computing_in(prefix.precision, prefix.device):
            return model.prefix(pixels, prefix.cut)

    return run


def _folded(model: Classifier, prefix: Prefix) -> Engine:
    graph = _graph(model, prefix)
    if prefix.device == "cpu":
        fuse_activations(graph, prefix.dtype)
    return lambda pixels: graph(pixels.to(prefix.dtype))


def _compiled(model: Classifier, prefix: Prefix) -> Engine:
    graph = _graph(model, prefix)
    compiled = torch.compile(graph, dynamic=False, options={"freezing": True})

    def run(pixels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            result: dict[str, Tensor] = compiled(pixels.to(prefix.dtype))
        return result

    run(_example(model, prefix))
    return run


def _onnx(model: Classifier, prefix: Prefix) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = prefix.threads
    example = _example(model, prefix)
    names = list(model.prefix(example[:1], prefix.cut))
    program = torch.onnx.export(_Tensors(model, prefix.cut), (example,), dynamo=True, verbose=False)
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    with TemporaryDirectory() as folder:
        program.save(f"{folder}/prefix.onnx")
        session = onnxruntime.InferenceSession(f"{folder}/prefix.onnx", options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name

    def run(pixels: Tensor) -> dict[str, Tensor]:
        results = session.run(None, {source: pixels.contiguous().numpy()})
        tensors = zip(names, results, strict=True)
        return {name: torch.from_numpy(array).to(prefix.dtype) for name, array in tensors}

    return run


ENGINES: Mapping[str, Callable[[Classifier, Prefix], Engine]] = {
    "eager": _eager,
    "folded": _folded,
    "compiled": _compiled,
    "onnx": _onnx,
}


class _Tensors(nn.Module):
    """A prefix as a module that returns a tuple of tensors."""

    def __init__(self, model: Classifier, cut: int) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.cut = cut
        self.training = False

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone.run({"x": pixels}, 0, self.cut).values())


def _graph(model: Classifier, prefix: Prefix) -> fx.GraphModule:
    return frozen_graph(lambda pixels: model.prefix(pixels, prefix.cut), _example(model, prefix), prefix.dtype)


def _example(model: Classifier, prefix: Prefix) -> Tensor:
    return model.backbone.blank_pixels(prefix.batch).contiguous(memory_format=torch.channels_last)


def _has_onnx() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnxscript"))
