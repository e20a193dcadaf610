"""The page of a comparison: candidates side by side, accuracy against time, and a learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionadapt.html.pages import percent, render
from visionadapt.report.svg_charts import Chart, ShareChart, learning_curve, scatter, shares


def comparison_page(name: str, facts: Mapping[str, Any]) -> str:
    """Render the page from the facts of `comparison.json`. Names are escaped."""
    candidates, best = facts["candidates"], facts["recommended"]
    return render(
        "visionadapt.report",
        "comparison.html",
        name=name,
        facts=facts,
        candidates=candidates,
        accuracy=_accuracy(candidates, best),
        time=_time(candidates, best),
        curve=_curve(facts["learning_curve"], facts["forecast"]),
    )


def _accuracy(candidates: Sequence[Mapping[str, Any]], best: str) -> ShareChart | None:
    if "interval" not in candidates[0]:
        return None
    rows = [
        (
            f"{number} {one['name']}",
            f"{percent(one['score'])} ({100 * one['interval'][0]:.0f}–{percent(one['interval'][1], 0)})",
            one["score"],
            *one["interval"],
            "one" if one["name"] == best else "plain",
        )
        for number, one in enumerate(candidates, 1)
    ]
    return shares("Validation accuracy, with 95 % intervals", rows)


def _time(candidates: Sequence[Mapping[str, Any]], best: str) -> Chart:
    points = [
        (one["seconds"], one["score"], one.get("interval"), str(number), "one" if one["name"] == best else "plain")
        for number, one in enumerate(candidates, 1)
    ]
    return scatter("Validation score against time", "seconds", points)


def _curve(points: Sequence[Mapping[str, Any]], forecast: Mapping[str, Any] | None) -> Chart | None:
    if len(points) < 2:
        return None
    measured = [(point["images"], point["score"]) for point in points]
    ahead = [] if forecast is None else [measured[-1], (forecast["images"], forecast["solved_head"])]
    return learning_curve("Solved head by number of training images", measured, ahead)
