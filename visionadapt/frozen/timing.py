"""Measure reading, engines and training steps, once per machine: a stopwatch never changes a later result."""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from visionadapt.errors import ImageError, RunError
from visionadapt.frozen.engines import Prefix, engine_versions
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.images import Preprocessing
from visionadapt.system.locks import lock
from visionadapt.system.storage import write_json
from visionadapt.version import __version__

_WARM_IMAGES = 8
_STEP_IMAGES = 32
"""Images of the step that is measured, at most: in smaller batches, each takes longer."""

_version = cache(version)
"""It would read and parse the whole description of a library every time."""


class Measurements:
    """Named measurements in one JSON file of a folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "measurements.json"

    def once(self, what: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """Return the value stored for `what` on this machine; if there is none, measure and store it, as plain data.

        `what` is everything that the value depends on besides the machine. Raise RunError if the file cannot be
        written.
        """
        text = json.dumps({**what, "machine": machine()}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:24]
        found = self._read().get(key)
        if found is not None:
            return found["value"]
        value = measure()
        return self._store(key, {**what, "value": value})["value"]

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        entries = stored.items() if isinstance(stored, dict) else ()
        return {key: entry for key, entry in entries if isinstance(entry, dict) and "value" in entry}

    def _store(self, key: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Store an entry, unless another process did so meanwhile; return the stored one."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.with_suffix(".lock").open("w") as file:
                lock(file)
                entries = self._read()
                stored: dict[str, Any] = entries.setdefault(key, entry)
                write_json(self.file, entries)
        except OSError as error:
            raise RunError(f"{self.file} cannot be written ({error.strerror}); give --cache another folder") from error
        return stored


@cache
def machine() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} {platform.machine()}"


def engine_figures(name: str, frozen: FrozenPart, prefix: Prefix, measured: Measurements) -> dict[str, float]:
    """Return the result of `measure_engine`, measured once per machine."""
    what = {"engine": name, **about(frozen, prefix), **engine_versions(name)}
    found: dict[str, float] = measured.once(what, lambda: measure_engine(name, frozen, prefix))
    return found


@torch.inference_mode()
def measure_engine(name: str, frozen: FrozenPart, prefix: Prefix) -> dict[str, float]:
    """Build an engine and run it twice on a synthetic batch: its error, and the seconds of the second run."""
    pixels = frozen.synthetic_pixels(prefix)
    started = time.perf_counter()
    error = frozen.relative_error(name, prefix, pixels)
    built = time.perf_counter()
    run = frozen.engine(name, prefix)
    seconds = _seconds(lambda: run(pixels), prefix.device)
    return {
        "error": error,
        "agrees": frozen.can_build(name, prefix) and (name == "eager" or frozen.agrees(error, prefix, pixels)),
        "seconds_to_build": round(built - started - seconds, 3),
        "seconds_a_picture": seconds / prefix.batch,
    }


def about(frozen: FrozenPart, prefix: Prefix) -> dict[str, Any]:
    """Return everything that the measurements of an engine depend on."""
    backbone = frozen.model.backbone
    return {
        "backbone": backbone.name,
        "weights": frozen.hash(prefix.cut),
        "image_size": backbone.config.image_size,
        **({} if backbone.config.channels == 3 else {"channels": backbone.config.channels}),
        "cut": prefix.cut,
        "precision": prefix.precision,
        "device": torch.cuda.get_device_name(prefix.device) if prefix.device.startswith("cuda") else prefix.device,
        "batch": prefix.batch,
        "threads": prefix.threads,
        "versions": {**versions(), "visionadapt": __version__},
    }


def _seconds(work: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def step_seconds(pipeline: Pipeline, measured: Measurements) -> float:
    """Return the seconds per image of what is after the cut, forward and backward, measured once per machine."""
    model, plan = pipeline.model, pipeline.plan
    what = {
        "step": ", ".join(model.adapter_specs),
        "images": min(plan.batch_size, _STEP_IMAGES),
        "classes": len(model.classes),
        "trained in": plan.precision,
        **about(pipeline.frozen, plan.prefix),
    }
    found: float = measured.once(what, lambda: measure_step(pipeline))
    return found


def measure_step(pipeline: Pipeline) -> float:
    """Measure a step on synthetic tensors: seconds per image. The model, its gradients and its modes do not change."""
    model, plan = pipeline.model, pipeline.plan
    shapes = model.backbone.cut_shapes()[plan.cut]
    dtype = torch.uint8 if plan.cut == 0 else plan.prefix.dtype
    images = min(plan.batch_size, _STEP_IMAGES)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    suffix = pipeline.for_head().suffix

    def step(images: int) -> None:
        state = {name: torch.zeros(images, *shape, dtype=dtype) for name, shape in shapes.items()}
        loss = model.head(suffix(state)).logsumexp(1).sum()
        torch.autograd.grad(loss, trained, allow_unused=True)

    training = model.training
    model.eval()
    step(min(images, _WARM_IMAGES))
    seconds = _seconds(lambda: step(images), plan.device)
    model.train(training)
    return seconds / images


def read_seconds(prepare: Preprocessing, files: Sequence[bytes]) -> float:
    """Measure how long one process decodes and resizes an image: the median of some files, 0 for none."""
    seconds = []
    for data in files:
        started = time.perf_counter()
        try:
            prepare.host(data)
        except ImageError:  # the pass over all rows reports it
            continue
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) if seconds else 0.0


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the bits."""
    return {name: _version(name) for name in ("torch", "torchvision", "timm", "pillow", "simplejpeg")}
