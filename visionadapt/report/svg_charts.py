"""Geometry of the charts that the SVG templates draw. Positions are in SVG units, y downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from visionadapt.html.pages import percent
from visionadapt.system.text import counted

WIDTH, HEIGHT = 360.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 20.0, 12.0, 44.0
ROW = 44.0


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line through points (x, y); `style` is its CSS class."""

    name: str
    style: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Point:
    """A point at (x, y) with a radius, and its interval from `low` to `high` on the y axis."""

    x: float
    y: float
    low: float
    high: float
    radius: float
    text: str
    style: str
    label: str = ""
    """Text beside the point."""


@dataclass(frozen=True)
class Chart:
    """Lines or points between two axes; `mark` is the x position of a vertical line."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    points: tuple[Point, ...] = ()
    mark: float | None = None


@dataclass(frozen=True)
class ShareRow:
    """A row of a `ShareChart`: a dot or bar at `at`, and its interval."""

    name: str
    text: str
    top: float
    at: float
    low: float
    high: float
    style: str


@dataclass(frozen=True)
class ShareChart:
    """Shares below each other on one axis from 0 to 100 %."""

    title: str
    rows: tuple[ShareRow, ...]
    ticks: tuple[Tick, ...]
    height: float


def curves(title: str, series: Sequence[tuple[str, str, Sequence[float]]], chosen: int, share: bool) -> Chart:
    """Plot one value per epoch, from epoch 1 on, and mark the chosen epoch.

    `series` has the name, style and values of each line; values that are not finite are left out. Shares are shown in
    percent.
    """
    epochs = max(len(values) for _, _, values in series)
    finite = [value for _, _, values in series for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    ticks = _ticks(min(low, high - 0.05) if share else low, high)
    x_at = _scale(1, max(epochs, 2), LEFT, WIDTH - RIGHT)
    y_at = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    return Chart(
        title,
        "epoch",
        "",
        tuple(Tick(x_at(epoch), str(epoch)) for epoch in _epochs(epochs)),
        tuple(Tick(y_at(value), percent(value, 0) if share else f"{value:g}") for value in ticks),
        lines=tuple(
            Line(
                name, style, tuple((x_at(i), y_at(value)) for i, value in enumerate(values, 1) if math.isfinite(value))
            )
            for name, style, values in series
        ),
        mark=x_at(chosen) if 1 <= chosen <= epochs else None,
    )


def reliability(title: str, bins: Sequence[tuple[float, float, float, float, int]], style: str) -> Chart:
    """Plot accuracy against predicted probability.

    `bins` are mean probability, accuracy, its lower and upper limit, and number of images of each bin with images.
    """
    x_at, y_at = _scale(0, 1, LEFT, WIDTH - RIGHT), _scale(0, 1, HEIGHT - BOTTOM, TOP)
    most = max((count for *_, count in bins), default=1)
    quarters = [0, 0.25, 0.5, 0.75, 1]
    return Chart(
        title,
        "predicted probability",
        "accuracy",
        tuple(Tick(x_at(value), percent(value, 0)) for value in quarters),
        tuple(Tick(y_at(value), percent(value, 0)) for value in quarters),
        lines=(Line("perfect calibration", "ideal", ((x_at(0), y_at(0)), (x_at(1), y_at(1)))),),
        points=tuple(
            Point(
                x_at(mean),
                y_at(right),
                y_at(low),
                y_at(high),
                3 + 5 * math.sqrt(count / most),
                f"{counted(count, 'image')} at {percent(mean, 0)}: {percent(right, 0)} correct",
                style,
            )
            for mean, right, low, high, count in bins
        ),
    )


def scatter(title: str, x_label: str, points: Sequence[tuple[float, float, Sequence[float] | None, str, str]]) -> Chart:
    """Plot shares against positive numbers on a logarithmic axis.

    Each point has the number, the share, its interval or None, a label and a style.
    """
    x_at, x_ticks = _logarithmic([x for x, *_ in points])
    limits = [value for _, y, interval, *_ in points for value in (y, *(interval or ()))]
    ticks = _ticks(min(limits), max(limits))
    y_at = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    return Chart(
        title,
        x_label,
        "",
        x_ticks,
        tuple(Tick(y_at(value), percent(value, 0)) for value in ticks),
        points=tuple(
            Point(
                x_at(x),
                y_at(y),
                y_at((interval or (y, y))[0]),
                y_at((interval or (y, y))[1]),
                5,
                f"{label}: {percent(y)}",
                style,
                label,
            )
            for x, y, interval, label, style in points
        ),
    )


def learning_curve(title: str, measured: Sequence[tuple[float, float]], ahead: Sequence[tuple[float, float]]) -> Chart:
    """Plot shares by numbers of images on a logarithmic axis: measured ones, and from the last one on a forecast."""
    x_at, x_ticks = _logarithmic([x for x, _ in (*measured, *ahead)], [int(x) for x, _ in (*measured, *ahead[1:])])
    shares_ = [y for _, y in (*measured, *ahead)]
    ticks = _ticks(min(shares_), max(shares_))
    y_at = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    lines = [("measured", "one", measured), *([("forecast", "ideal", ahead)] if ahead else [])]
    return Chart(
        title,
        "training images",
        "",
        x_ticks,
        tuple(Tick(y_at(value), percent(value, 0)) for value in ticks),
        lines=tuple(Line(name, style, tuple((x_at(x), y_at(y)) for x, y in line)) for name, style, line in lines),
    )


def shares(title: str, rows: Sequence[tuple[str, str, float, float, float, str]]) -> ShareChart:
    """Plot shares below each other: name, text, share, its lower and upper limit, and style of each."""
    at = _scale(0, 1, 2, WIDTH - 14)
    placed = tuple(
        ShareRow(name, text, index * ROW, at(value), at(low), at(high), style)
        for index, (name, text, value, low, high, style) in enumerate(rows)
    )
    ticks = tuple(Tick(at(value), percent(value, 0)) for value in (0, 0.25, 0.5, 0.75, 1))
    return ShareChart(title, placed, ticks, len(placed) * ROW + 24)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Linear map of [low, high] to [start, end], rounded to 0.1 units."""
    span = (high - low) or 1.0
    return lambda value: round(start + (value - low) / span * (end - start), 1)


def _logarithmic(
    values: Sequence[float], labelled: Sequence[int] | None = None
) -> tuple[Callable[[float], float], tuple[Tick, ...]]:
    """Return the position of positive numbers on a logarithmic x axis, and ticks: the `labelled`, or 1, 3, 10, 30."""
    low, high = max(min(values), 1e-3), max(*values, 1e-2)
    at = _scale(math.log10(low * 0.9), math.log10(high * 1.1), LEFT, WIDTH - RIGHT)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_ones = [factor * 10.0**power for power in powers for factor in (1, 3)]
    chosen: Sequence[float] = labelled or [value for value in round_ones if low * 0.9 <= value <= high * 1.1]
    return lambda value: at(math.log10(max(value, low))), tuple(Tick(at(math.log10(v)), f"{v:g}") for v in chosen)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values that enclose [low, high]."""
    span = max(high - low, 1e-3 * max(abs(high), 1.0))
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if span / (factor * power) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]


def _epochs(count: int) -> list[int]:
    """At most six epochs to label, including the first and the last."""
    step = max(1, math.ceil((count - 1) / 5))
    inner = [epoch for epoch in range(1, count, step) if count - epoch >= step / 2]
    return [*inner, count]
