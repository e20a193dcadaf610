"""What must not have changed when a run is resumed, or between the processes of one run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from visionadapt.core.records import FrozenSource, Source
from visionadapt.errors import RunError, UsageError
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.timing import versions
from visionadapt.model.classifier import Classifier
from visionadapt.runs.folder import read_json
from visionadapt.runs.saved import read_plan
from visionadapt.runs.starting import Start
from visionadapt.sources.edited import Edits
from visionadapt.system import distributed
from visionadapt.system.devices import choose_device
from visionadapt.training.steps import Training


def check_source(run: Path, source: Source, *, resumed: bool) -> str | None:
    """Return the hash of a frozen source's rows; raise RunError if the resumed run began with others."""
    now = source.fingerprint if isinstance(source, FrozenSource) else None
    if resumed and read_json(run, "config.json").get("manifest") != now:
        raise RunError(f"{source} holds other rows than {run} began with; restore it, or {_anew(run)}")
    return now


def check_edits(run: Path, path: str | None, *, resumed: bool) -> Edits | None:
    """Return what the file of --exclude decides; raise RunError if a resumed run began with another."""
    edits = Edits.read(path) if path else None
    if edits is not None and resumed and read_json(run, "config.json").get("exclude") != edits.digest:
        raise RunError(f"{path} is not what {run} began with; restore it, or {_anew(run)}")
    return edits


def _anew(run: Path) -> str:
    return f"start a new run with the same settings (visionadapt runs {run} --toml)"


def check_start(run: Path, origin: str | None, *, resumed: bool) -> str | None:
    """Return the digest of the model of --from; raise RunError if a resumed run began with another."""
    digest = Start.read(origin).digest if origin else None
    if digest is not None and resumed and read_json(run, "config.json").get("from") != digest:
        raise RunError(f"{origin} is not the classifier that {run} began with; restore it, or {_anew(run)}")
    return digest


def resumed_plan(run: Path, model: Classifier) -> Plan:
    """Return the plan that a run began with, the same in every process.

    Raises:
        RunError: weights, libraries or device are not those of the plan.
    """
    return distributed.from_first(lambda: _stored_plan(run, model))


def _stored_plan(run: Path, model: Classifier) -> Plan:
    plan = read_plan(run)
    if (plan.weights_hash, plan.versions) != (model.backbone.weights_hash, versions()):
        raise RunError(f"{run} began with other weights or library versions; restore them, or train anew")
    try:
        choose_device(plan.device)
    except UsageError as error:
        there = "which this machine does not have; resume it where there is one, or train anew"
        raise RunError(f"{run} began on {plan.device}, {there}") from error
    return plan


def check_alike(training: Training) -> None:
    """Raise UsageError if another process has other rows, weights or libraries."""
    if distributed.world_size() == 1:
        return
    keys = hashlib.sha256()
    for rows in training.rows.values():
        for index in range(len(rows)):
            keys.update(f"{rows.key(index)}\x1f{list(rows.labels(index))}\x1e".encode("utf-8", "surrogatepass"))
    facts = {"images": keys.hexdigest()[:12], "weights": training.model.backbone.weights_hash[:12]}
    distributed.check_alike({**facts, "libraries": dict(versions())})
