"""Ways to run the frozen part of a classifier: each gives the same features within its tolerance, at its own speed.

| engine | what it is | for |
|---|---|---|
| `eager` | the backbone as it stands, channels last, autocast | anything; it cannot fail |
| `folded` | its graph: batch norms folded away, on a CPU activations fused | backbones with batch norms |
| `compiled` | that graph through torch's compiler, weights frozen into it | long jobs: compiling takes its time |
| `onnx` | ONNX Runtime in float32 | long jobs where the extra `onnx` is installed |
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from visionadapt.errors import RunError, UsageError
from visionadapt.frozen.fusing import fuse_activations
from visionadapt.frozen.graphs import frozen_graph
from visionadapt.frozen.precision import computing_in
from visionadapt.model.classifier import Classifier

Engine = Callable[[Tensor], dict[str, Tensor]]
"""Normalised pixels float32 [B, 3, S, S] → the named tensors [B, …] at a cut."""

TOLERANCE = 1e-4
"""Largest relative error ‖y − y₀‖ / ‖y₀‖ of an engine's output against eager float32 …"""

TIMES_EAGER = 2.0
"""… or this many times the error that the backbone itself makes in the same number format, where that is more."""


@dataclass(frozen=True)
class Prefix:
    """What an engine is built for.

    Attributes:
        cut: the segments before it are run.
        precision: number format of what comes out, and of the arithmetic (`onnx` computes in float32).
        device: where.
        batch: pictures in every forward.
        threads: CPU threads.
    """

    cut: int
    precision: str
    device: str
    batch: int
    threads: int

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as torch knows it."""
        found: torch.dtype = getattr(torch, self.precision)
        return found

    def computing(self) -> AbstractContextManager[None]:
        """The context in which the backbone itself computes."""
        return computing_in(self.precision, self.device)


ONNX_SECONDS = 60.0
"""Seconds of frozen forwards from which on exporting to ONNX can pay; it takes 3 to 10."""

COMPILE_SECONDS = 120.0
"""Seconds from which on compiling can pay; it takes 10 to 40."""

_State = tuple[tuple[int, int], ...]
"""Where each frozen tensor lies, and how often it was changed."""

_built: WeakKeyDictionary[Classifier, dict[tuple[str, Prefix], tuple[_State, Engine | str]]] = WeakKeyDictionary()
_latest: dict[tuple[object, ...], Engine] = {}
"""The engine that was built last, for the next model with the same frozen part: another fold, another adapter."""
_hashes: WeakKeyDictionary[Classifier, dict[int, tuple[_State, str]]] = WeakKeyDictionary()


def engine(name: str, model: Classifier, prefix: Prefix, *, exact: bool = False) -> Engine:
    """Return the engine, built once a model and its weights; where it cannot be built, say so and take `eager`.

    Args:
        name: one of `ENGINES`.
        model: what it runs.
        prefix: which part of it, and how.
        exact: no other engine will do.

    Raises:
        RunError: an exact one cannot be built here.
        KeyError: the name is none of `ENGINES`.
    """
    if name == "eager":
        return _eager(model, prefix)
    found = _build_once(name, model, prefix)
    if not isinstance(found, str):
        return found
    if exact:
        raise RunError(f"the engine {name!r} cannot be built here ({found}), and this run computes with it")
    return _eager(model, prefix)


def can_build(name: str, model: Classifier, prefix: Prefix) -> bool:
    """Whether an engine can be built here; where it cannot, a warning says why."""
    return name == "eager" or not isinstance(_build_once(name, model, prefix), str)


def check_wish(name: str, device: str) -> None:
    """Raise UsageError where an engine that was asked for by name is not to be had."""
    if name == "onnx" and not _has_onnx():
        raise UsageError("--engine onnx needs ONNX Runtime: pip install 'visionadapt[onnx]', or give --engine auto")
    if name == "onnx" and device != "cpu":
        raise UsageError(f"--engine onnx computes on the CPU, not on {device}; give --device cpu or --engine auto")


def frozen_hash(model: Classifier, cut: int) -> str:
    """SHA-256 of what is frozen before a cut, as it is now; empty at the pixels, which no weight makes."""
    if cut == 0:
        return ""
    state, known = _state(model, cut), _hashes.setdefault(model, {})
    if cut not in known or known[cut][0] != state:
        digest = hashlib.sha256()
        for tensor in _frozen(model, cut):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        known[cut] = (state, digest.hexdigest())
    return known[cut][1]


def engine_versions(name: str) -> dict[str, str]:
    """Versions of the libraries that decide the bits of this engine alone; where they are missing, none."""
    return {"onnxruntime": version("onnxruntime")} if name == "onnx" and _has_onnx() else {}


def _build_once(name: str, model: Classifier, prefix: Prefix) -> Engine | str:
    """The engine, or why it cannot be built."""
    state, built = _state(model, prefix.cut), _built.setdefault(model, {})
    if (name, prefix) not in built or built[name, prefix][0] != state:
        built[name, prefix] = (state, _build_or_share(name, model, prefix))
    return built[name, prefix][1]


def _build_or_share(name: str, model: Classifier, prefix: Prefix) -> Engine | str:
    structure = _plain_structure(model, prefix.cut)
    key = (ENGINES[name], prefix, model.backbone.name, structure, frozen_hash(model, prefix.cut))
    if structure is not None and key in _latest:
        return _latest[key]
    found = _build(name, model, prefix)
    if structure is not None and not isinstance(found, str):
        _latest.clear()
        _latest[key] = found
    return found


def _plain_structure(model: Classifier, cut: int) -> tuple[object, ...] | None:
    """Input size and types of the backbone's own modules before a cut; None where something else acts among them."""
    behind = {id(module) for part in _parts_behind(model, cut) for module in part.modules()}
    before = [module for module in model.backbone.model.modules() if id(module) not in behind]
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in before)
    if hooked or any(hasattr(type(module), "class_without_adapters") for module in before):
        return None
    return model.backbone.config.image_size, *map(type, before)


def _build(name: str, model: Classifier, prefix: Prefix) -> Engine | str:
    builder = ENGINES[name]
    try:
        return builder(model, prefix)
    except Exception as error:  # noqa: BLE001 - whatever a compiler stumbles over, the backbone itself still runs
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        warnings.warn(f"the engine {name!r} cannot be built here ({reason}); the backbone runs as it is", stacklevel=4)
        return reason


def _frozen(model: Classifier, cut: int) -> list[Tensor]:
    """The backbone's tensors but those behind the cut and those that are trained."""
    parts = _parts_behind(model, cut)
    behind = {id(tensor) for part in parts for tensor in (*part.parameters(), *part.buffers())}
    tensors = (*model.backbone.parameters(), *model.backbone.buffers())
    return [tensor for tensor in tensors if not tensor.requires_grad and id(tensor) not in behind]


def _parts_behind(model: Classifier, cut: int) -> list[nn.Module]:
    segments = model.backbone.segments[cut:]
    return [part for segment in segments for part in segment.parts if isinstance(part, nn.Module)]


def _state(model: Classifier, cut: int) -> _State:
    frozen = _frozen(model, cut)
    return tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in frozen)


def candidates(model: Classifier, prefix: Prefix, seconds_at_hand: float = 0.0) -> list[str]:
    """Engines worth a try, the likeliest first; those that take long to build only for a job of many seconds."""
    names = ["folded", "eager"] if _has_batch_norm(model, prefix.cut) else ["eager"]
    if seconds_at_hand > ONNX_SECONDS and prefix.device == "cpu" and _has_onnx():
        names.append("onnx")
    if seconds_at_hand > COMPILE_SECONDS:
        names.append("compiled")
    return names


def relative_error(name: str, model: Classifier, prefix: Prefix, pixels: Tensor) -> float:
    """‖y − y₀‖ / ‖y₀‖ of an engine on normalised pixels [batch, 3, S, S], the worst of the named tensors.

    y₀ is the backbone's own in float32, on the first four pictures.
    """
    few = pixels[:4]
    exact = model.prefix(few, prefix.cut)
    return _distance(engine(name, model, prefix)(pixels), exact)


def agrees(error: float, model: Classifier, prefix: Prefix, pixels: Tensor) -> bool:
    """Whether a relative error is one that the number format explains."""
    if error <= TOLERANCE:
        return True
    few = pixels[:4]
    return error <= TIMES_EAGER * _distance(_eager(model, prefix)(few), model.prefix(few, prefix.cut))


def _distance(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    errors = [
        float((found[name][: len(tensor)].double() - tensor.double()).norm() / tensor.double().norm().clamp_min(1e-12))
        for name, tensor in exact.items()
    ]
    return max(errors)


def _eager(model: Classifier, prefix: Prefix) -> Engine:
    def run(pixels: Tensor) -> dict[str, Tensor]:
        with prefix.computing():
            return model.prefix(pixels, prefix.cut)

    return run


def _folded(model: Classifier, prefix: Prefix) -> Engine:
    graph = frozen_graph(_of(model, prefix.cut), _example(model, prefix), prefix.dtype)
    if prefix.device == "cpu":
        fuse_activations(graph, prefix.dtype)
    return lambda pixels: graph(pixels.to(prefix.dtype))


def _compiled(model: Classifier, prefix: Prefix) -> Engine:
    graph = frozen_graph(_of(model, prefix.cut), _example(model, prefix), prefix.dtype)
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
        raise RuntimeError("torch.onnx.export gave nothing")
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
    """A prefix as a module whose result is a tuple of tensors."""

    def __init__(self, model: Classifier, cut: int) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.cut = cut
        self.training = False

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone.run({"x": pixels}, 0, self.cut).values())


def _of(model: Classifier, cut: int) -> Engine:
    return lambda pixels: model.prefix(pixels, cut)


def _example(model: Classifier, prefix: Prefix) -> Tensor:
    return model.backbone.blank_pixels(prefix.batch).contiguous(memory_format=torch.channels_last)


def _has_batch_norm(model: Classifier, cut: int) -> bool:
    return cut > 0 and any(isinstance(module, nn.BatchNorm2d) for module in model.backbone.modules())


def _has_onnx() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnxscript"))
