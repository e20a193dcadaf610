"""The six things that are drawn, each a list of parts in its own units: pose and build vary, a colour is a role.

Two pairs differ in a detail only: a perch has two fins on its back where a fish has one, and a jug has a spout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

Point = tuple[float, float]
Role = Literal["main", "second", "third", "light", "ink"]


@dataclass(frozen=True)
class Part:
    """An area (`width` 0) or a line of some width, with x to the right and y downwards; lengths are in object units."""

    points: list[Point]
    role: Role
    width: float = 0.0
    detail: bool = False


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0) -> list[Point]:
    """Points on an ellipse from `start` to `stop` degrees, clockwise from the right."""
    steps = 40
    angles = (math.radians(start + (stop - start) * step / steps) for step in range(steps + 1))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def smooth(points: list[Point], closed: bool = True) -> list[Point]:
    """A Catmull-Rom curve through the points."""
    count = len(points)

    def at(index: int) -> Point:
        return points[index % count] if closed else points[min(max(index, 0), count - 1)]

    curve = []
    for index in range(count if closed else count - 1):
        knots = [at(index + offset) for offset in (-1, 0, 1, 2)]
        curve += [_catmull_rom(knots, step / 10) for step in range(10)]
    return curve if closed else [*curve, points[-1]]


def _catmull_rom(knots: list[Point], t: float) -> Point:
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
    x, y = (0.5 * sum(weight * knot[axis] for weight, knot in zip(weights, knots, strict=True)) for axis in (0, 1))
    return x, y


def mirrored(points: list[Point]) -> list[Point]:
    """The points with their mirror image at the axis x = 0 appended: a symmetrical outline."""
    return points + [(-x, y) for x, y in reversed(points) if x]


def butterfly(random: Random) -> list[Part]:
    """Four wings with spots, a slender body and two feelers; one side may be foreshortened."""
    span, drop = random.uniform(0.44, 0.54), random.uniform(0.3, 0.44)
    upper = [(0.02, -0.04), (0.12, -0.26), (span * 0.8, -0.4), (span, -0.3), (span * 0.88, -0.06), (0.2, 0.05)]
    lower = [(0.02, 0.0), (0.22, 0.02), (span * 0.74, 0.12), (span * 0.66, drop * 0.8), (0.2, drop), (0.06, 0.2)]
    tail = random.choice([0.0, 0.0, 0.14])
    lower[4] = (lower[4][0] + tail / 3, lower[4][1] + tail)
    pattern = random.choice(["spots", "veins", "both"])
    parts = []
    for side in (1.0, -random.uniform(0.72, 1.0)):
        parts += [Part(_wing(lower, side), "second"), Part(_wing(upper, side), "main")]
        parts += _wing_pattern(pattern, side, span, drop)
    parts += [
        Part(smooth([(0.01, -0.2), (side * 0.06, -0.32), (side * 0.16, -0.42)], closed=False), "ink", 0.014)
        for side in (1, -1)
    ]
    return [*parts, Part(ellipse(0, 0.02, 0.034, 0.24), "ink"), Part(ellipse(0, -0.2, 0.045, 0.05), "ink")]


def _wing(points: list[Point], side: float) -> list[Point]:
    return smooth([(side * x, y) for x, y in points])


def _wing_pattern(pattern: str, side: float, span: float, drop: float) -> list[Part]:
    inner = [(0.1, -0.1), (0.17, -0.24), (span * 0.66, -0.3), (span * 0.62, -0.1)]
    spots = [(span * 0.86, -0.24, 0.035), (span * 0.76, -0.32, 0.028), (span * 0.52, drop * 0.62, 0.06)]
    veins = [(span * 0.8, -0.34), (span * 0.9, -0.18), (span * 0.55, 0.16)]
    parts = [Part(_wing(inner, side), "third", detail=True)] if pattern != "veins" else []
    if pattern != "spots":
        parts += [Part([(side * 0.03, -0.02), (side * x, y)], "ink", 0.01, detail=True) for x, y in veins]
    if pattern != "veins":
        parts += [Part(ellipse(side * x, y, r * abs(side), r), "light", detail=True) for x, y, r in spots]
    return parts


def fish(random: Random) -> list[Part]:
    """A fish with one long fin on its back."""
    depth, height = random.uniform(0.17, 0.29), random.uniform(0.08, 0.16)
    fin = [(-0.22, -0.8 * depth), (-0.08, -depth - height), (0.16, -depth - height * 0.6), (0.2, -0.5 * depth)]
    return _swimmer(depth, [fin], random)


def perch(random: Random) -> list[Part]:
    """A fish with two fins on its back."""
    depth, height = random.uniform(0.17, 0.29), random.uniform(0.08, 0.16)
    first = [(-0.24, -0.75 * depth), (-0.17, -depth - height), (-0.04, -depth - height * 0.7), (-0.02, -0.6 * depth)]
    second = [(0.04, -0.6 * depth), (0.09, -depth - height * 0.7), (0.2, -depth - height * 0.3), (0.21, -0.4 * depth)]
    return _swimmer(depth, [first, second], random)


def _swimmer(depth: float, dorsal: list[list[Point]], random: Random) -> list[Part]:
    """A fish from its side: deep or slender, forked or round tail, stripes or scales."""
    profile = [(-0.5, 0.0), (-0.4, -0.5), (-0.2, -0.92), (0.0, -0.96), (0.18, -0.62), (0.34, -0.2)]
    back = [(x, y * depth) for x, y in profile]
    body = smooth(back + [(x, -y * 0.92) for x, y in reversed(back[1:])])
    fork = random.uniform(0.36, 0.5)
    tail = [(0.3, -0.02), (0.44, -0.12), (0.58, -0.22), (fork, 0.0), (0.58, 0.22), (0.44, 0.12), (0.3, 0.02)]
    height = random.uniform(0.08, 0.16)
    anal = [(0.04, 0.8 * depth), (0.1, depth + height * 0.7), (0.24, depth * 0.8), (0.22, 0.42 * depth)]
    fins = [Part(smooth(points), "second") for points in (tail, *dorsal, anal)]
    return [*fins, Part(body, "main"), *_fish_pattern(depth, random), *_fish_face(depth)]


def _fish_pattern(depth: float, random: Random) -> list[Part]:
    kind = random.choice(["bands", "scales", "line", "belly"])
    if kind == "bands":
        return [
            Part(smooth([(x, -r * depth), (x + 0.035, 0), (x, r * depth)], closed=False), "third", 0.05, detail=True)
            for x, r in ((-0.14, 0.84), (0.0, 0.84), (0.13, 0.62))
        ]
    if kind == "scales":
        places = [(-0.12 + 0.1 * column, depth * row) for column in range(4) for row in (-0.42, -0.05, 0.32)]
        return [Part(ellipse(x, y, 0.045, 0.04, -80, 80), "ink", 0.01, detail=True) for x, y in places]
    if kind == "line":
        return [
            Part(smooth([(-0.2, -0.1 * depth), (0.1, 0.05), (0.34, 0.0)], closed=False), "third", 0.03, detail=True)
        ]
    belly = [(-0.4, 0.3 * depth), (-0.1, 0.4 * depth), (0.2, 0.22 * depth), (0.1, 0.65 * depth), (-0.2, 0.8 * depth)]
    return [Part(smooth(belly), "light", detail=True)]


def _fish_face(depth: float) -> list[Part]:
    eye = (-0.37, -0.2 * depth)
    return [
        Part(ellipse(-0.3, 0, 0.07, 0.66 * depth, -75, 75), "ink", 0.013, detail=True),
        Part(
            smooth([(-0.13, 0.1 * depth), (-0.04, -0.05), (0.02, 0.05), (-0.03, 0.45 * depth)]), "second", detail=True
        ),
        Part(ellipse(*eye, 0.036, 0.036), "light", detail=True),
        Part(ellipse(*eye, 0.02, 0.02), "ink", detail=True),
        Part([(-0.49, 0.12 * depth), (-0.42, 0.24 * depth)], "ink", 0.013, detail=True),
    ]


def guitar(random: Random) -> list[Part]:
    """A guitar with its neck upwards or to one side: broad or narrow, with or without a cutaway."""
    upper, waist, lower = random.uniform(0.15, 0.18), random.uniform(0.1, 0.13), random.uniform(0.2, 0.25)
    half = [(0.0, -0.06), (0.07, -0.07), (upper, 0.01), (waist, 0.15), (lower, 0.32), (lower * 0.6, 0.46), (0, 0.49)]
    body = mirrored(half)
    if random.random() < 0.35:
        body[1:3] = [(0.045, 0.03), (upper * 0.9, -0.02)]
    hole = random.uniform(0.05, 0.065)
    parts = [
        Part(smooth(body), "main"),
        Part([(-0.025, 0.1), (0.025, 0.1), (0.022, -0.42), (-0.022, -0.42)], "second"),
        Part([(-0.03, -0.4), (0.03, -0.4), (0.045, -0.56), (0, -0.58), (-0.045, -0.56)], "second"),
        Part(ellipse(0, 0.14, hole * 1.35, hole * 1.35), "third", detail=True),
        Part(ellipse(0, 0.14, hole, hole), "ink", detail=True),
        Part([(-0.085, 0.32), (0.085, 0.32), (0.085, 0.35), (-0.085, 0.35)], "ink", detail=True),
    ]
    if random.random() < 0.5:
        guard = [(0.04, 0.19), (0.09, 0.17), (0.13, 0.27), (0.07, 0.29)]
        parts.insert(3, Part(smooth(guard), "third", detail=True))
    return _turned(parts + _strings(), random.choice([0, 0, 35, -35, 80]))


def _strings() -> list[Part]:
    frets = [Part([(-0.023, y / 100), (0.023, y / 100)], "light", 0.006, detail=True) for y in range(-38, -6, 6)]
    strings = [Part([(x, -0.5), (x * 1.6, 0.33)], "light", 0.005, detail=True) for x in (-0.015, -0.005, 0.005, 0.015)]
    pegs = [Part(ellipse(side * 0.062, y, 0.02, 0.016), "ink") for side in (1, -1) for y in (-0.44, -0.49, -0.54)]
    return frets + strings + pegs


def _turned(parts: list[Part], degrees: float) -> list[Part]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [
        Part([(c * x - s * y, s * x + c * y) for x, y in part.points], part.role, part.width, part.detail)
        for part in parts
    ]


def mug(random: Random) -> list[Part]:
    """A mug, whose rim is even."""
    return _vessel(False, random)


def jug(random: Random) -> list[Part]:
    """A jug, which has a spout opposite to its handle."""
    return _vessel(True, random)


def _vessel(spout: bool, random: Random) -> list[Part]:
    """A vessel with its handle at one side: tall or broad, seen from the front or somewhat from above."""
    half, height, tilt = random.uniform(0.24, 0.33), random.uniform(0.26, 0.36), random.uniform(0.035, 0.1)
    foot = half * random.uniform(0.8, 1.0)
    body = ellipse(0, height, foot, tilt, 0, 180) + ellipse(0, -height, half, tilt, 180, 0)
    grip = ellipse(half * 0.94, 0, random.uniform(0.17, 0.22), height * random.uniform(0.5, 0.7), -95, 95)
    beak = [(-half * 0.9, -height + 0.02), (-half - 0.1, -height - 0.01), (-half * 0.95, -height + 0.13)]
    parts = [
        Part(grip, "main", random.uniform(0.06, 0.085)),
        *([Part(beak, "main")] if spout else []),
        Part(body, "main"),
        *_mug_pattern(half, foot, height, tilt, random),
        Part(ellipse(0, -height, half, tilt), "light"),
        Part(ellipse(0, -height + tilt * 0.12, half * 0.86, tilt * 0.78), "third"),
    ]
    return parts + (_steam(height, random) if random.random() < 0.5 else [])


def _mug_pattern(half: float, foot: float, height: float, tilt: float, random: Random) -> list[Part]:
    kind = random.choice(["band", "dots", "drop", "none"])
    if kind == "band":
        middle = (half + foot) / 2
        top, bottom = ellipse(0, -0.12, middle, tilt, 180, 0), ellipse(0, 0.12, middle * 0.98, tilt, 0, 180)
        return [Part(top + bottom, "second", detail=True)]
    if kind == "dots":
        places = [(x * half, y * height) for x, y in ((-0.5, -0.3), (0.1, -0.1), (-0.3, 0.4), (0.5, 0.5), (0.6, -0.35))]
        return [Part(ellipse(x, y + tilt, 0.04, 0.045), "second", detail=True) for x, y in places]
    if kind == "drop":
        heart = mirrored([(0.0, -0.06), (0.07, -0.1), (0.12, -0.03), (0.06, 0.07), (0.0, 0.14)])
        return [Part(smooth([(x, y + tilt) for x, y in heart]), "second", detail=True)]
    return []


def _steam(height: float, random: Random) -> list[Part]:
    rise = random.uniform(0.14, 0.22)
    wave = [(0.0, 0.0), (0.03, -0.25), (-0.03, -0.6), (0.02, -1.0)]
    shifts = (-0.11, 0.02, 0.13)
    curves = [[(shift + x, -height - 0.06 + y * rise) for x, y in wave] for shift in shifts]
    return [Part(smooth(curve, closed=False), "light", 0.022, detail=True) for curve in curves]


SHAPES: dict[str, Callable[[Random], list[Part]]] = {
    "butterfly": butterfly,
    "fish": fish,
    "guitar": guitar,
    "jug": jug,
    "mug": mug,
    "perch": perch,
}
