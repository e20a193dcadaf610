"""Results as rows of a closing table, by name: of a training run and of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from visionadapt.training.epochs import words

MOST_CLASSES = 6
"""Classes up to which a training summary shows each; of more it shows the weakest."""

Rows = Iterator[tuple[str, str]]

_WHILE_TRAINING = ("frozen", "engine", "expected")
_OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "mean_average_precision",
    "macro_f1",
    "top_3",
    "top_5",
    "log_loss",
    "calibration_error",
)


def planned_rows(lines: Sequence[str]) -> dict[str, str]:
    """Return the lines of a plan (`name: value`) that the live view shows during training, by name."""
    rows = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return {name: rows[name] for name in _WHILE_TRAINING if name in rows}


def closing_rows(summary: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the results of a training run: `summary.json`, and the metrics of the validation split."""
    return {
        **dict(_validation(summary, metrics)),
        **dict(_weakest_classes(metrics.get("per_class", {}))),
        **dict(_effort(summary)),
    }


def evaluation_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the results of an evaluation, whose metrics are as in `evaluation.json`."""
    rows = {"images": f"{metrics['pictures']} of {metrics['rows']} rows ({metrics['rejected']} rejected)"}
    rows |= {words(name): _with_interval(metrics, name) for name in _OVERALL if name in metrics}
    rows |= {f"class {name}": _of_class(row) for name, row in metrics["per_class"].items() if row["support"]}
    for column, slices in metrics.get("slices", {}).items():
        rows |= {f"{column} {row['value'] or '(none)'}": _of_slice(row) for row in slices}
    return rows


def _validation(summary: Mapping[str, Any], metrics: Mapping[str, Any]) -> Rows:
    rows, rejected = summary["val_rows"], summary["val_rejected"]
    on = f"{rows - rejected} images" if not rejected else f"{rows - rejected} of {rows} rows, {rejected} rejected"
    for name, value in summary.items():
        if name.startswith("val_") and isinstance(value, float) and name != "val_loss":
            limits = metrics.get("intervals", {}).get(name.removeprefix("val_"))
            interval = f" ({_interval(limits, 4)})" if limits else ""
            title = words(name).replace("val", "validation", 1)
            yield title, f"{value:.4f}{interval} on {on} ({_chosen(summary)})"
    if summary["majority_accuracy"] is not None:
        yield "always the largest class", f"{summary['majority_accuracy']:.4f}"
    if summary["probe_accuracy"] is not None:
        yield "linear probe", f"{summary['probe_accuracy']:.4f}"


def _chosen(summary: Mapping[str, Any]) -> str:
    return f"epoch {summary['best_epoch']}" if summary["best_epoch"] else "the solved head: every epoch was worse"


def _weakest_classes(classes: Mapping[str, Mapping[str, Any]]) -> Rows:
    known = {name: row for name, row in classes.items() if row["support"] and row["recall"] is not None}
    weakest = sorted(known, key=lambda name: float(known[name]["recall"]))
    for name in list(known) if len(known) <= MOST_CLASSES else weakest[: MOST_CLASSES // 2]:
        yield f"class {name}", _of_class(known[name])


def _effort(summary: Mapping[str, Any]) -> Rows:
    if summary.get("stopped_after") is not None:
        yield "stopped", f"after epoch {summary['stopped_after']}; train --resume goes on"
    trainable, total = summary["trainable_parameters"], summary["total_parameters"]
    yield "trained parameters", f"{trainable:,} of {total:,} ({trainable / total:.1%})"
    yield "images", ", ".join(f"{count} {name}" for name, count in summary["images"].items())
    yield "seconds", ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())


def _with_interval(metrics: Mapping[str, Any], name: str) -> str:
    value, limits = metrics[name], metrics["intervals"].get(name)
    if value is None:
        return "none: no usable image of a known class"
    return f"{value:.4f}" + (f" ({_interval(limits, 4)})" if limits else "")


def _of_class(row: Mapping[str, Any]) -> str:
    precision = "–" if row["precision"] is None else f"{row['precision']:.3f}"
    average = row.get("average_precision")
    first = "" if average is None else f"average precision {average:.3f}, "
    return f"{first}recall {row['recall']:.3f}, precision {precision}, {row['support']} images"


def _of_slice(row: Mapping[str, Any]) -> str:
    if row["accuracy"] is None:
        return f"no usable image ({row['rejected']} rejected)"
    return f"accuracy {row['accuracy']:.3f} ({_interval(row['interval'], 3)}), {row['pictures']} images"


def _interval(limits: Sequence[float], digits: int) -> str:
    return f"95 %: {limits[0]:.{digits}f} to {limits[1]:.{digits}f}"
