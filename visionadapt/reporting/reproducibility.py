"""How a run was computed, where its time went, and what it takes to repeat it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import visionadapt.reporting.svg_charts as charts
from visionadapt.reporting.run_contents import RunFacts
from visionadapt.run_folder.options import ACTIONS, DEFAULTS, repeating

_PHASES = {
    "prepare": "loading the backbone, listing the pictures",
    "features": "reading pictures, computing what is frozen",
    "train": "training",
    "save": "calibrating, saving, checking what was saved",
}
_TOLD_APART = {"versions", "weights_hash", "backbone", "cut", "trained", "segments", "estimate"}
_DECISIONS = {
    "image_size": "side of the input in pixels",
    "kept": "frozen part kept on the disk",
    "engine": "what runs the frozen part",
    "views": "augmented views a picture",
    "precision": "number format of what is trained",
    "prefix_precision": "number format of the frozen part",
    "threads": "CPU threads",
    "prefix_batch": "pictures a frozen forward",
    "batch_size": "pictures a training step",
}


def times(facts: RunFacts) -> charts.Rows | None:
    """How long each phase took, as shares of the whole."""
    seconds: Mapping[str, float] = facts.summary.get("seconds", {})
    total = sum(seconds.values())
    if not total:
        return None
    rows = [
        (_PHASES.get(name, name), f"{value:.1f} s", value / total, 0.0, value / total, "one")
        for name, value in seconds.items()
    ]
    return charts.shares(f"Where the {total:.0f} seconds went", rows)


def plan_rows(facts: RunFacts) -> Iterator[tuple[str, str]]:
    """What the planner decided, a line each: name and value."""
    plan = facts.plan
    if "cut" in plan and "segments" in plan:
        yield "trained", _trained(plan["cut"], plan["segments"])
    for name, value in plan.items():
        if name not in _TOLD_APART:
            yield _DECISIONS.get(name, name.replace("_", " ")), _text(value)
    if plan.get("estimate"):
        yield "expected before the first step", _text(plan["estimate"])
    summary = facts.summary
    if "trainable_parameters" in summary:
        trainable, total = summary["trainable_parameters"], summary["total_parameters"]
        yield "trained parameters", f"{trainable:,} of {total:,} ({trainable / total:.1%})"
    if "prefix_forwards" in summary:
        yield (
            "forwards of the frozen part",
            f"{summary['prefix_forwards']:,}; what else it took was kept from earlier runs",
        )


def _trained(cut: int, segments: int) -> str:
    if cut == segments:
        return "the head alone: the whole backbone is frozen and runs once a picture"
    if cut == 0:
        return "from the pixels on: nothing could be computed ahead"
    return f"segments {cut + 1} to {segments} of {segments}: those before are frozen and run once a picture"


def command(facts: RunFacts) -> str:
    """The command that repeats the run; empty where a run was saved from Python."""
    if not facts.options:
        return ""
    words = ["python", "-m", "visionadapt.train"]
    for name, value in repeating(facts.options).items():
        if value != DEFAULTS.get(name):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def settings_rows(facts: RunFacts) -> list[tuple[str, str]]:
    """Every option and setting of the computation by name, in text."""
    saved = {name: value for name, value in facts.config.items() if name in {"backbone", "adapter", "seed"}}
    given = facts.options or saved
    return [(name.replace("_", "-"), _text(value)) for name, value in given.items() if name not in ACTIONS]


def versions(facts: RunFacts) -> list[tuple[str, str]]:
    """Name and version of every library that decides the bits."""
    return [*facts.config.get("made_by", {}).items(), *facts.plan.get("versions", {}).items()]


def hashes(facts: RunFacts) -> list[tuple[str, str]]:
    """What was hashed, and the SHA-256."""
    found = []
    if "weights_hash" in facts.plan:
        found.append(("the backbone's weights", str(facts.plan["weights_hash"])))
    for name in ("model.safetensors", "preprocess.json", "classes.json"):
        if (facts.folder / name).exists():
            found.append((name, _sha256(facts.folder / name)))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(value: Any) -> str:
    if value is None:
        return "by default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
