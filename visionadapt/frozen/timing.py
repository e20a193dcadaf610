"""Take the time of reading, of the engines and of a training step, on this machine, once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from visionadapt.core import spec
from visionadapt.errors import ImageError
from visionadapt.frozen.engines import Prefix, agrees, can_build, engine, engine_versions, frozen_hash, relative_error
from visionadapt.frozen.features import run_suffix
from visionadapt.frozen.measurements import Measurements
from visionadapt.frozen.plan import Plan
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.version import __version__

_STEP_PICTURES = 8


def engine_figures(name: str, model: Classifier, prefix: Prefix, measured: Measurements) -> dict[str, float]:
    """What `measure_engine` says; it is asked once on this machine."""
    what = {"engine": name, **about(model, prefix), **engine_versions(name)}
    found: dict[str, float] = measured.once(what, lambda: measure_engine(name, model, prefix))
    return found


@torch.inference_mode()
def measure_engine(name: str, model: Classifier, prefix: Prefix) -> dict[str, float]:
    """Build an engine and run it twice on a made-up batch: its error, and the seconds that the second run takes."""
    pixels = _made_up_pixels(model, prefix)
    started = time.perf_counter()
    error = relative_error(name, model, prefix, pixels)
    built = time.perf_counter()
    run = engine(name, model, prefix)
    seconds = _seconds(lambda: run(pixels), prefix.device)
    return {
        "error": error,
        "agrees": can_build(name, model, prefix) and (name == "eager" or agrees(error, model, prefix, pixels)),
        "seconds_to_build": round(built - started - seconds, 3),
        "seconds_a_picture": seconds / prefix.batch,
    }


def about(model: Classifier, prefix: Prefix) -> dict[str, Any]:
    """What an engine's figures depend on."""
    return {
        "backbone": model.backbone.name,
        "weights": frozen_hash(model, prefix.cut),
        "image_size": model.backbone.config.image_size,
        "cut": prefix.cut,
        "precision": prefix.precision,
        "device": _device_name(prefix.device),
        "batch": prefix.batch,
        "threads": prefix.threads,
        "versions": {**versions(), "visionadapt": __version__},
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _made_up_pixels(model: Classifier, prefix: Prefix) -> Tensor:
    """Smooth noise in the range of normalised pixels, the same on every machine."""
    size = model.backbone.config.image_size
    coarse = torch.randn(prefix.batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth.to(prefix.device).contiguous(memory_format=torch.channels_last)


def _seconds(work: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def step_seconds(model: Classifier, prepare: Preprocessing, plan: Plan, measured: Measurements) -> float:
    """Seconds a picture of what lies behind the cut, forward and backward; measured once on this machine."""
    what = {
        "step": spec.format(model.adapter, "adapter") if model.adapter is not None else "none",
        "classes": len(model.classes),
        "trained in": plan.precision,
        **about(model, plan.prefix),
    }
    found: float = measured.once(what, lambda: measure_step(model, prepare, plan))
    return found


def measure_step(model: Classifier, prepare: Preprocessing, plan: Plan) -> float:
    """Seconds a picture of one step on made-up tensors; the model, its gradients and its modes stay as they were."""
    shapes = model.backbone.cut_shapes()[plan.cut]
    dtype = torch.uint8 if plan.cut == 0 else plan.prefix.dtype
    state = {name: torch.zeros(_STEP_PICTURES, *shape, dtype=dtype) for name, shape in shapes.items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step() -> None:
        loss = model.head(run_suffix(model, prepare, plan, state)).logsumexp(1).sum()
        torch.autograd.grad(loss, trained, allow_unused=True)

    training = model.training
    model.eval()
    step()
    seconds = _seconds(step, plan.device)
    model.train(training)
    return seconds / _STEP_PICTURES


def read_seconds(prepare: Preprocessing, files: Sequence[bytes]) -> float:
    """Seconds that one process takes to decode and resize a picture, the median of some files; 0 of none."""
    seconds = []
    for data in files:
        started = time.perf_counter()
        try:
            prepare.host(data)
        except ImageError:  # the pass over all rows tells what is wrong with it
            continue
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) if seconds else 0.0


def versions() -> dict[str, str]:
    """Versions of the libraries that decide the bits."""
    return {name: version(name) for name in ("torch", "torchvision", "timm", "pillow", "simplejpeg")}
