"""What a person is told of a run: what was planned, in the lines of a live view, and what came out, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from visionadapt.training.epochs import words

MOST_CLASSES = 6
"""Classes up to which a summary tells of each; of more it tells of the weakest."""

_WHILE_TRAINING = ("frozen", "engine", "expected")
_INTERVALS = {"val_accuracy": "accuracy"}


def planned_rows(lines: Sequence[str]) -> dict[str, str]:
    """Those of the plan's lines, `name: value` each, that one wants to see while training goes on, by name."""
    rows = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return {name: rows[name] for name in _WHILE_TRAINING if name in rows}


def closing_rows(summary: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, str]:
    """What came out of a run, by name.

    Args:
        summary: what `summary.json` holds.
        figures: those of the validation part, as in `validation/evaluation.json`.
    """
    return {
        **dict(_validation(summary, figures)),
        **dict(_for_comparison(summary)),
        **dict(_classes(figures.get("per_class", {}))),
        **dict(_effort(summary)),
    }


def _validation(summary: Mapping[str, Any], figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rows, rejected = summary["val_rows"], summary["val_rejected"]
    on = f"{rows - rejected} pictures" if not rejected else f"{rows - rejected} of {rows} rows, {rejected} rejected"
    for name, value in summary.items():
        if name.startswith("val_") and isinstance(value, float) and name != "val_loss":
            limits = figures.get("intervals", {}).get(_INTERVALS.get(name))
            interval = f" (95 %: {limits[0]:.4f} to {limits[1]:.4f})" if limits else ""
            title = words(name).replace("val", "validation", 1)
            yield title, f"{value:.4f}{interval} on {on} (epoch {summary['best_epoch']})"


def _for_comparison(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if summary["majority_accuracy"] is not None:
        yield "always the largest class", f"{summary['majority_accuracy']:.4f}"
    if summary["probe_accuracy"] is not None:
        yield "linear probe", f"{summary['probe_accuracy']:.4f}"


def _classes(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    known = {name: row for name, row in classes.items() if row["support"] and row["recall"] is not None}
    weakest = sorted(known, key=lambda name: float(known[name]["recall"]))
    for name in list(known) if len(known) <= MOST_CLASSES else weakest[: MOST_CLASSES // 2]:
        row = known[name]
        precision = "–" if row["precision"] is None else f"{row['precision']:.3f}"
        yield f"class {name}", f"recall {row['recall']:.3f}, precision {precision}, {row['support']} pictures"


def _effort(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    trainable, total = summary["trainable_parameters"], summary["total_parameters"]
    yield "trained parameters", f"{trainable:,} of {total:,} ({trainable / total:.1%})"
    yield "pictures", ", ".join(f"{count} {name}" for name, count in summary["images"].items())
    yield "seconds", ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())
