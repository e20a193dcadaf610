"""`Plan`: how a run computes, decided once before the first step and reused to resume, evaluate and predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from visionadapt.errors import RunError
from visionadapt.frozen.engines import ENGINES, Prefix
from visionadapt.system.devices import choose_device

PRECISIONS = ("float32", "bfloat16", "float16")
_MOST = {"image_size": 1 << 16, "threads": 1 << 12, "prefix_batch": 1 << 16, "batch_size": 1 << 31}
"""The greatest value of some numbers in `plan.json`; a batch is never larger than the data."""
_MAPPINGS = (Mapping[str, str], Mapping[str, float])


@dataclass(frozen=True)
class Plan:
    """How a run computes.

    Attributes:
        backbone: name in timm.
        weights_hash: SHA-256 of the backbone's weights.
        image_size: side of the input in pixels.
        cut: everything before this segment of the backbone is frozen and computed once.
        trained: the first segment with something to train; everything between the cut and it is frozen too.
        segments: number of segments; with a cut there, only the head is trained.
        kept: whether the tensors at the cut are cached on disk; otherwise they are recomputed in every epoch.
        engine: what runs the frozen part, a name of `engines.ENGINES`.
        views: number of augmented views per training image; 0 without augmentation.
        precision: number format of the steps of what is trained, a torch dtype's name; the head itself computes in
            float32, and validation and predictions in `prefix_precision`.
        prefix_precision: number format of the frozen part.
        device: where to compute.
        threads: number of CPU threads.
        prefix_batch: images per forward of the frozen part; a smaller batch is padded to it.
        batch_size: images per training step; evaluation pads to it.
        versions: of the libraries that the exact bits depend on.
        estimate: expected seconds and cached bytes, before the first step.
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
        """The configuration that the engine is built for."""
        return Prefix(self.cut, self.prefix_precision, self.device, self.prefix_batch, self.threads)

    def on(self, device: str) -> Plan:
        """Return the plan for a device of this machine, with the same number formats and engine if supported there."""
        chosen = choose_device(device)
        formats = {name: getattr(self, name) for name in ("precision", "prefix_precision")}
        if chosen.type == "cpu":
            formats = {name: "float32" if value == "float16" else value for name, value in formats.items()}
        engine = "eager" if self.engine == "onnx" and chosen.type != "cpu" else self.engine
        return dataclasses.replace(self, device=str(chosen), engine=engine, **formats)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read the result of `to_json`; raise RunError if it is anything else."""
        kinds = {name: dict if kind in _MAPPINGS else kind for name, kind in get_type_hints(cls).items()}
        known = set(data) == set(kinds) and all(type(data[name]) is kind for name, kind in kinds.items())
        known = known and data["engine"] in ENGINES and {data["precision"], data["prefix_precision"]} <= set(PRECISIONS)
        known = known and 0 <= data["cut"] <= data["trained"] <= data["segments"]
        known = known and all(1 <= data[name] <= most for name, most in _MOST.items())
        known = known and all(type(text) is str for text in data["versions"].values())
        if not known or not all(type(number) in (int, float) for number in data["estimate"].values()):
            raise RunError("plan.json is not this version's; train again, or use the version that wrote it")
        return cls(**data)
