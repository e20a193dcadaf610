"""How a run was computed, how long it took, and how to reproduce it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import visionadapt.report.svg_charts as charts
from visionadapt.html.pages import percent
from visionadapt.report.run_contents import RunContents
from visionadapt.runs.options import ACTIONS, DEFAULTS, repeating
from visionadapt.system.storage import file_sha256

_PHASES = {
    "prepare": "loading the backbone, listing the images",
    "features": "reading images, computing the frozen part",
    "train": "training",
    "save": "calibrating, saving, verifying",
    "refit": "training once more, on all images",
}
_SHOWN_ELSEWHERE = {"versions", "weights_hash", "backbone", "cut", "trained", "segments", "estimate"}
_DECISIONS = {
    "image_size": "side of the input in pixels",
    "kept": "frozen part cached on disk",
    "engine": "engine of the frozen part",
    "views": "augmented views per image",
    "precision": "number format of the training steps",
    "prefix_precision": "number format of the frozen part",
    "threads": "CPU threads",
    "prefix_batch": "images per forward pass of the frozen part",
    "batch_size": "images per training step",
}


def times(run: RunContents) -> charts.ShareChart | None:
    """Plot how long each phase took before the report, as shares of the total: a report written anew shows the same."""
    taken: Mapping[str, float] = run.summary.get("seconds", {})
    seconds = {name: value for name, value in taken.items() if name != "report"}
    total = sum(seconds.values())
    if not total:
        return None
    rows = [
        (_PHASES.get(name, name), f"{value:.1f} s", value / total, 0.0, value / total, "one")
        for name, value in seconds.items()
    ]
    return charts.shares(f"Where the {total:.0f} seconds went", rows)


def plan_rows(run: RunContents) -> Iterator[tuple[str, str]]:
    """Yield name and value of each decision of the planner."""
    plan = run.plan
    if "cut" in plan and "segments" in plan:
        yield "trained", _trained(plan["cut"], plan["segments"])
    for name, value in plan.items():
        if name not in _SHOWN_ELSEWHERE:
            yield _DECISIONS.get(name, name.replace("_", " ")), _text(value)
    if plan.get("estimate"):
        yield "estimate before the first step", _text(plan["estimate"])
    summary = run.summary
    if "trainable_parameters" in summary:
        trainable, total = summary["trainable_parameters"], summary["total_parameters"]
        yield "trained parameters", f"{trainable:,} of {total:,} ({percent(trainable / total)})"
    if "prefix_forwards" in summary:
        yield "images computed by the frozen part", f"{summary['prefix_forwards']:,}; all others were cached"


def _trained(cut: int, segments: int) -> str:
    if cut == segments:
        return "the head only: the backbone is frozen and runs once per image"
    if cut == 0:
        return "everything from the pixels on: nothing can be precomputed"
    return f"segments {cut + 1} to {segments} of {segments}: those before are frozen and run once per image"


def command(run: RunContents) -> str:
    """Return the command that repeats the run; empty if it was saved from Python."""
    if not run.options:
        return ""
    words = ["python", "-m", "visionadapt.train"]
    refit = {"refit": True} if "refit_images" in run.summary else {}
    for name, value in {**repeating(run.options), **refit}.items():
        if value != DEFAULTS.get(name):
            option = name.replace("_", "-")
            words += [f"--no-{option}"] if value is False else [f"--{option}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def settings_rows(run: RunContents) -> list[tuple[str, str]]:
    """Return name and value of every option and setting that affects the computation."""
    saved = {name: value for name, value in run.config.items() if name in {"backbone", "adapter", "seed"}}
    given = run.options or saved
    return [(name.replace("_", "-"), _text(value)) for name, value in given.items() if name not in ACTIONS]


def versions(run: RunContents) -> list[tuple[str, str]]:
    """Return name and version of every library that affects the results."""
    return [*run.config.get("made_by", {}).items(), *run.plan.get("versions", {}).items()]


def hashes(run: RunContents) -> list[tuple[str, str]]:
    """Return name and SHA-256 of the weights and of the files that determine predictions."""
    found = []
    if "weights_hash" in run.plan:
        found.append(("backbone weights", str(run.plan["weights_hash"])))
    for name in ("model.safetensors", "preprocess.json", "classes.json"):
        if (run.folder / name).exists():
            found.append((name, file_sha256(run.folder / name)))
    return found


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
