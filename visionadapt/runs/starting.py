"""Start a new run from the trained classifier of another one: its adapter layers, its head and its preprocessing."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionadapt import adapters
from visionadapt.core import spec
from visionadapt.errors import RunError, UsageError
from visionadapt.images import Preprocessing
from visionadapt.model.classifier import HEAD, Classifier
from visionadapt.runs.options import DEFAULTS, RunOptions
from visionadapt.runs.saved import read_model, weights_of

_KEPT = ("resize", "scaled", "sample_range", "bands", "icc", "max_pixels")
"""Options of the preprocessing, which is the other run's."""


@dataclass(frozen=True)
class Start:
    """What a new run takes over.

    Attributes:
        run: the other run's folder.
        facts: backbone, adapter, classes and so on, as `model.safetensors` holds them.
        tensors: its trained tensors, from `trained_tensors`.
        digest: SHA-256 of its `model.safetensors`.
    """

    run: Path
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    digest: str

    @classmethod
    def read(cls, run: str | Path) -> Start:
        """Read a run folder; raise RunError if it has no trained classifier, or is damaged."""
        tensors, facts = read_model(Path(run))
        if facts["members"]:
            raise RunError(f"{run} is an ensemble, which cannot be trained further; give one of its members to --from")
        digest = hashlib.sha256((Path(run) / "model.safetensors").read_bytes()).hexdigest()
        return cls(Path(run), facts, tensors, digest)

    @property
    def seed(self) -> int:
        """The seed of the backbone's weights, if they are random."""
        return int(self.facts["seed"])

    @property
    def prepare(self) -> Preprocessing:
        """The preprocessing of the other run."""
        return Preprocessing.from_json(self.facts["preprocessing"])

    def options(self, given: RunOptions) -> RunOptions:
        """Return the options of the new run, with the model of the other one.

        Raises:
            UsageError: another model or another preprocessing is given.
        """
        for name in _KEPT:
            if getattr(given, name) != DEFAULTS[name]:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} cannot go with --from, which keeps the preprocessing of {self.run}")
        own = {name: self.facts[name] for name in ("backbone", "adapter", "image_size", "channels", "features")}
        for name, value in own.items():
            wanted = getattr(given, name)
            if wanted not in (DEFAULTS[name], value) and not (name == "adapter" and _canonical(wanted) == value):
                option = f"--{name.replace('_', '-')} {wanted}"
                raise UsageError(f"{option} cannot go with --from: {self.run} was trained with {value}")
        if given.weights == DEFAULTS["weights"]:
            own["weights"] = str(weights_of(self.run))
        return dataclasses.replace(given, from_run=str(self.run.absolute()), **own)

    def put_into(self, model: Classifier) -> str:
        """Copy the adapter layers and the head into a classifier; return a line that says what it starts from.

        The head's row of each class that both have is copied; the rows of new classes start at zero.

        Raises:
            RunError: the backbone's weights are not those of the other run.
        """
        if model.backbone.weights_hash != self.facts["weights_hash"]:
            raise RunError(f"{self.run} was trained on other backbone weights; name the right file with --weights")
        layers = {key: tensor for key, tensor in self.tensors.items() if "/" in key and not key.startswith(f"{HEAD}/")}
        if layers or model.adapter is not None:
            adapters.load_state(model.backbone, layers)
        before = {name: place for place, name in enumerate(self.facts["classes"])}
        pairs = [(place, before[name]) for place, name in enumerate(model.classes) if name in before]
        own, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        head = {key.removeprefix(f"{HEAD}/"): t for key, t in self.tensors.items() if key.startswith(f"{HEAD}/")}
        with torch.no_grad():
            model.head.feature_mean.copy_(head["feature_mean"])
            model.head.feature_std.copy_(head["feature_std"])
            model.head.linear.weight[own] = head["linear.weight"][other].to(model.head.linear.weight)
            model.head.linear.bias[own] = head["linear.bias"][other].to(model.head.linear.bias)
        new = len(model.classes) - len(own)
        return f"starts from {self.run}: {len(own)} of its {len(before)} classes" + (f", and {new} new" if new else "")


def _canonical(adapter: str) -> str:
    """Return the text of an adapter as run folders have it."""
    return "none" if adapter == "none" else spec.format(spec.parse(adapter, "adapter", allow_import=True), "adapter")
