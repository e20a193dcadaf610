"""What a training run says first, and its results and those of an evaluation as rows of a closing table, by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionadapt.evaluation.verdict import against, verdict, weakest
from visionadapt.metrics.words import value_of, words
from visionadapt.system.text import counted, percent

if TYPE_CHECKING:
    from visionadapt.evaluation.against import Comparison

MOST_CLASSES = 6
"""Classes up to which a training summary shows each; of more it shows the weakest."""

MOST_NAMED_CHARACTERS = 40
"""Of a folder in the middle of a sentence."""
MOST_NAMED = 10
"""Classes that the first lines of a run name."""

KEPT = (
    "kept: the latest epoch within one standard error of the best on the validation images, or the solved head, a "
    "linear probe of the unchanged backbone, if that and those just before are not as good"
)
"""By which rule an epoch is kept."""
HOPELESS = (
    "stopped: the validation accuracy is too far below that of the solved head to catch up, which the run ends with; "
    "--no-early-stopping trains all epochs"
)
FLAT = "stopped: the validation loss no longer falls; --no-early-stopping trains all epochs"
"""These say why a run has fewer epochs than it began with."""

Rows = Iterator[tuple[str, str]]

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


def opening_lines(data: str, classes: Sequence[str], images: int, seconds: float | None, run: Path) -> list[str]:
    """Return what to know before a training run: its data, how long it should take, and where the result goes."""
    named = ", ".join(classes[:MOST_NAMED])
    more = f" and {len(classes) - MOST_NAMED:,} more" if len(classes) > MOST_NAMED else ""
    what = f"{counted(images, 'image')} of {counted(len(classes), 'class', 'classes')}"
    lines = [f"data: {data}, {what}: {named}{more}"]
    if seconds is not None:
        lines.append(f"time: about {rounded(seconds)}, if nothing else keeps this machine busy")
    return [*lines, f"run folder: {run}, which gets the report and the trained classifier"]


def rounded(seconds: float) -> str:
    """Return a duration as people say it.

    >>> rounded(3.4), rounded(47), rounded(100), rounded(9_000)
    ('5 seconds', '50 seconds', '2 minutes', '2.5 hours')
    """
    if seconds <= 55:
        step = 5 if seconds <= 20 else 10
        return f"{max(math.ceil(seconds / step), 1) * step} seconds"
    if seconds <= 90 * 60:
        minutes = max(round(seconds / 60), 1)
        return "a minute" if minutes == 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.1f} hours"


def closing_rows(
    summary: Mapping[str, Any], metrics: Mapping[str, Any], adapted: bool = True, verbose: bool = True, run: str = "RUN"
) -> dict[str, str]:
    """Return the results of a training run: `summary.json`, and the metrics of the validation split.

    `adapted` says whether adapter layers were trained. Only if `verbose`, the effort is told too. Commands that follow
    name the folder `run`, unless it is long: the last line has it anyway.
    """
    told = verdict(summary, metrics, adapted=adapted)
    compared = summary if adapted else {**summary, "probe_accuracy": None}  # a head alone is that head itself
    rows = {**dict(_validation(compared, metrics)), **dict(_weakest_classes(metrics.get("per_class", {})))}
    if told is not None:
        steps = " ".join(told.steps)
        steps = steps.replace(" RUN ", f" {run} ") if len(run) <= MOST_NAMED_CHARACTERS else steps
        rows |= {"verdict": " ".join(told.judgement), "next": steps}
    return {**rows, **dict(_effort(summary, verbose))}


def evaluation_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the results of an evaluation, whose metrics are as in `evaluation.json`."""
    rows = {"images": f"{metrics['pictures']} of {metrics['rows']} rows ({metrics['rejected']} rejected)"}
    rows |= {words(name): _with_interval(metrics, name) for name in _OVERALL if name in metrics}
    rows |= {f"class {name}": _of_class(row) for name, row in metrics["per_class"].items() if row["support"]}
    for column, slices in metrics.get("slices", {}).items():
        rows |= {f"{column} {row['value'] or '(none)'}": _of_slice(row) for row in slices}
    return rows


def comparison_rows(comparison: Comparison) -> dict[str, str]:
    """Return how a classifier compares with another one on the same images."""
    found, names = comparison.figures(), comparison.names
    told = against(names[1], comparison.accuracies, (found["difference"], *found["interval"]), comparison.several)
    only = f"{found['only_first']} by {names[0]}, {found['only_second']} by {names[1]}, of {found['pictures']} images"
    return {"comparison": told, "every label right only" if comparison.several else "right only": only}


def _validation(summary: Mapping[str, Any], metrics: Mapping[str, Any]) -> Rows:
    rows, rejected = summary["val_rows"], summary["val_rejected"]
    on = counted(rows, "image") if not rejected else f"{rows - rejected} of {rows} rows, {rejected} rejected"
    for name, value in summary.items():
        if name.startswith("val_") and isinstance(value, float) and name != "val_loss":
            limits = metrics.get("intervals", {}).get(name.removeprefix("val_"))
            interval = f" ({_interval(limits, name)})" if limits else ""
            title = words(name).replace("val", "validation", 1)
            yield title, f"{value_of(name, value)}{interval} on {on} ({_chosen(summary)})"
    if summary.get("refit_images"):
        yield "saved", f"trained once more, on all {summary['refit_images']} images; the accuracy is that of before"
    if summary["probe_accuracy"] is not None:
        yield "solved head alone", percent(summary["probe_accuracy"])
    if summary["majority_accuracy"] is not None:
        yield "always the largest class", percent(summary["majority_accuracy"])


def _chosen(summary: Mapping[str, Any]) -> str:
    if summary.get("ensemble"):
        return f"the average of {len(summary['ensemble'])} classifiers"
    best = summary["best_epoch"]
    return f"epoch {best}" if best else "the solved head: no epoch was reliably better"


def _weakest_classes(classes: Mapping[str, Mapping[str, Any]]) -> Rows:
    names = weakest(classes)
    few = len(names) <= MOST_CLASSES
    for name in [name for name in classes if name in names] if few else names[: MOST_CLASSES // 2]:
        yield f"class {name}", _of_class(classes[name])


def _effort(summary: Mapping[str, Any], verbose: bool) -> Rows:
    if summary.get("stopped_after") is not None:
        yield "stopped", f"after epoch {summary['stopped_after']}; train --resume goes on"
    if not verbose:
        return
    trainable, total = summary["trainable_parameters"], summary["total_parameters"]
    yield "trained parameters", f"{trainable:,} of {total:,} ({percent(trainable / total)})"
    yield "images", ", ".join(f"{count} {name}" for name, count in summary["images"].items())
    yield "seconds", ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())


def _with_interval(metrics: Mapping[str, Any], name: str) -> str:
    value, limits = metrics[name], metrics["intervals"].get(name)
    if value is None:
        return "none: no usable image of a known class"
    return value_of(name, value) + (f" ({_interval(limits, name)})" if limits else "")


def _of_class(row: Mapping[str, Any]) -> str:
    average = row.get("average_precision")
    first = "" if average is None else f"average precision {percent(average)}, "
    rates = f"recall {percent(row['recall'])}, precision {percent(row['precision'])}"
    return f"{first}{rates}, {counted(row['support'], 'image')}"


def _of_slice(row: Mapping[str, Any]) -> str:
    if row["accuracy"] is None:
        return f"no usable image ({row['rejected']} rejected)"
    share = f"accuracy {percent(row['accuracy'])} ({_interval(row['interval'], 'accuracy')})"
    return f"{share}, {counted(row['pictures'], 'image')}"


def _interval(limits: Sequence[float], name: str) -> str:
    return f"95 % interval {value_of(name, limits[0])} to {value_of(name, limits[1])}"
