"""Decide once, before the first step, how a run computes; resume, evaluation and prediction read the decision.

Each decision is one pure function of measured facts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from visionadapt.errors import MemoryShortageError, RunError, UsageError
from visionadapt.model import Classifier
from visionadapt.settings import TrainingSettings

PREFIX_BATCH = 32


@dataclass(frozen=True)
class Plan:
    """How a run computes.

    Attributes:
        backbone: name in timm.
        weights_hash: SHA-256 of the backbone's weights.
        image_size: side of the input in pixels.
        cut: what lies before this segment of the backbone is frozen, and computed once.
        segments: how many segments there are; a cut there means that only the head is trained.
        views: how many augmented views of each training picture are computed; 0 where there is no augmentation.
        precision: number format of the backbone's arithmetic, a torch dtype's name.
        device: where it computes.
        threads: how many CPU threads it computes with.
        prefix_batch: pictures in every forward of the frozen part; a smaller rest is padded to it.
        batch_size: pictures a training step; evaluation pads to it.
        versions: of the libraries that decide the bits.
    """

    backbone: str
    weights_hash: str
    image_size: int
    cut: int
    segments: int
    views: int
    precision: str
    device: str
    threads: int
    prefix_batch: int
    batch_size: int
    versions: Mapping[str, str]

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as torch knows it."""
        found: torch.dtype = getattr(torch, self.precision)
        return found

    def autocast(self) -> torch.autocast:
        """The context in which the backbone computes."""
        enabled = self.dtype is not torch.float32
        return torch.autocast(torch.device(self.device).type, self.dtype if enabled else None, enabled)

    def on(self, device: str) -> Plan:
        """The same plan on this machine's device; the number format stays where the device knows it."""
        chosen = choose_device(device)
        precision = "float32" if self.precision == "float16" and chosen.type == "cpu" else self.precision
        return dataclasses.replace(self, device=str(chosen), precision=precision)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read what `to_json` gave; raise RunError where it is something else."""
        names = {item.name for item in dataclasses.fields(cls)}
        if set(data) != names or data["precision"] not in {"float32", "bfloat16", "float16"}:
            raise RunError("plan.json is not this version's; train again, or use the version that wrote it")
        return cls(**data)


def make_plan(model: Classifier, settings: TrainingSettings) -> Plan:
    """Decide how a classifier is trained with these settings on this machine."""
    device = choose_device(settings.device)
    return Plan(
        backbone=model.backbone.name,
        weights_hash=model.backbone.weights_hash,
        image_size=model.backbone.config.image_size,
        cut=choose_cut(model),
        segments=len(model.backbone.segments),
        views=0 if settings.augment == "none" else min(settings.views, settings.epochs),
        precision=choose_precision(settings.precision, device),
        device=str(device),
        threads=torch.get_num_threads(),
        prefix_batch=PREFIX_BATCH,
        batch_size=settings.batch_size,
        versions={name: version(name) for name in ("torch", "torchvision", "timm", "pillow", "simplejpeg")},
    )


def choose_cut(model: Classifier) -> int:
    """Return the first segment that has something to train; all of them where only the head has.

    What is trained in the stem or behind the last block cannot be told apart here: the cut is then 0.
    """
    owner = {
        id(parameter): position
        for position, segment in enumerate(model.backbone.segments)
        for part in segment.parts
        if isinstance(part, nn.Module)
        for parameter in part.parameters()
    }
    positions = [owner.get(id(parameter), 0) for parameter in model.backbone.parameters() if parameter.requires_grad]
    return min(positions, default=len(model.backbone.segments))


def choose_device(wanted: str) -> torch.device:
    """Return the device asked for; `auto` takes cuda, then mps, then cpu.

    Raises:
        UsageError: it is unknown or not there.
    """
    if wanted == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError(f"--device {wanted!r} is unknown; give auto, cpu, cuda, cuda:N or mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False) or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(
            f"--device {wanted}: this machine has none that torch can use; --device auto takes what there is"
        )
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the number format asked for; `auto` takes bfloat16 where the hardware multiplies it natively."""
    if wanted != "auto":
        if wanted == "float16" and device.type == "cpu":
            raise UsageError("--precision float16 needs a GPU; on a CPU give bfloat16, float32 or auto")
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" and _cpu_multiplies_bfloat16() else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions: torch has no public question for it, and not all releases this one."""
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question)() for question in questions if hasattr(torch.cpu, question))


@contextmanager
def enough_memory(plan: Plan, advice: str) -> Iterator[None]:
    """Turn the device's out-of-memory error into one line that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryShortageError(f"{plan.device} has too little memory: {advice}") from error
