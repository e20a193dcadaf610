"""How a run computes: decided once, before the first step; resume, evaluation and prediction read the decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from visionadapt.errors import MemoryShortageError, RunError
from visionadapt.frozen.engines import ENGINES, Prefix
from visionadapt.frozen.precision import computing_in
from visionadapt.model.classifier import Classifier
from visionadapt.system.devices import choose_device


@dataclass(frozen=True)
class Plan:
    """How a run computes.

    Attributes:
        backbone: name in timm.
        weights_hash: SHA-256 of the backbone's weights.
        image_size: side of the input in pixels.
        cut: what lies before this segment of the backbone is frozen, and computed once.
        trained: the first segment with something to train; what lies between the cut and it is frozen too.
        segments: how many segments there are; a cut there means that only the head is trained.
        kept: whether what lies at the cut is kept on the disk; else it is computed anew in every epoch.
        engine: what runs the frozen part, a name of `engines.ENGINES`.
        views: how many augmented views of each training picture are computed; 0 where there is no augmentation.
        precision: number format of what is trained, a torch dtype's name; the head itself computes in float32.
        prefix_precision: number format of the frozen part.
        device: where it computes.
        threads: how many CPU threads it computes with.
        prefix_batch: pictures in every forward of the frozen part; a smaller rest is padded to it.
        batch_size: pictures a training step; evaluation pads to it.
        versions: of the libraries that decide the bits.
        estimate: what was expected before the first step: seconds, and bytes kept.
    """

    backbone: str
    weights_hash: str
    image_size: int
    cut: int
    trained: int
    segments: int
    kept: bool
    engine: str
    views: int
    precision: str
    prefix_precision: str
    device: str
    threads: int
    prefix_batch: int
    batch_size: int
    versions: Mapping[str, str]
    estimate: Mapping[str, float] = field(default_factory=dict)

    @property
    def prefix(self) -> Prefix:
        """What the engine is built for."""
        return Prefix(self.cut, self.prefix_precision, self.device, self.prefix_batch, self.threads)

    def computing(self, *, twice: bool = False) -> AbstractContextManager[None]:
        """The context in which what is trained computes; `twice` as in `computing_in`."""
        return computing_in(self.precision, self.device, twice=twice)

    def on(self, device: str) -> Plan:
        """The same plan on this machine's device; number format and engine stay where the device knows them."""
        chosen = choose_device(device)
        known = {name: getattr(self, name) for name in ("precision", "prefix_precision")}
        if chosen.type == "cpu":
            known = {name: "float32" if value == "float16" else value for name, value in known.items()}
        engine = "eager" if self.engine == "onnx" and chosen.type != "cpu" else self.engine
        return dataclasses.replace(self, device=str(chosen), engine=engine, **known)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read what `to_json` gave; raise RunError where it is something else."""
        names = {item.name for item in dataclasses.fields(cls)}
        known = set(data) == names and data["engine"] in ENGINES
        known = known and {data["precision"], data["prefix_precision"]} <= set(PRECISIONS)
        if not known:
            raise RunError("plan.json is not this version's; train again, or use the version that wrote it")
        return cls(**data)


PRECISIONS = ("float32", "bfloat16", "float16")

_plans: WeakKeyDictionary[Classifier, Plan] = WeakKeyDictionary()


def remember(model: Classifier, plan: Plan) -> None:
    """Note how a classifier was trained, for whoever saves it."""
    _plans[model] = plan


def plan_of(model: Classifier) -> Plan | None:
    """The plan that a classifier was trained with in this process; None where it was not."""
    return _plans.get(model)


@contextmanager
def enough_memory(device: str, advice: str) -> Iterator[None]:
    """Turn the device's out-of-memory error into one line that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryShortageError(f"{device} has too little memory: {advice}") from error
