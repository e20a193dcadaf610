"""What a comparison of candidates has shown, in words: which one to use, and when a simpler one will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionadapt.system.text import percent, signed

QUICKER = 0.8
"""Share of the best candidate's time below which another one counts as cheaper."""
WORTH = 0.01
"""Gain of twice the images, as a share of all, from which labelling more is advised."""


def advice(candidates: Sequence[Mapping[str, Any]], recommended: str, forecast: Mapping[str, Any] | None) -> list[str]:
    """Return sentences about a comparison, the first one by itself enough.

    Args:
        candidates: what `comparison.json` says of each, the solved head first.
        recommended: name of the best one.
        forecast: what it says of twice the images; None if nothing can be said.
    """
    best = next(one for one in candidates if one["name"] == recommended)
    said = [f"Best: {_named(best)}, {percent(best['score'])} on the validation images, in {best['seconds']:.0f} s."]
    cheaper = [one for one in candidates if one["seconds"] < QUICKER * best["seconds"] and _as_good(one)]
    if cheaper:
        one = min(cheaper, key=lambda one: one["seconds"])
        apart, low, high = (signed(100 * one["against_recommended"][name]) for name in ("difference", "low", "high"))
        said.append(
            f"{_named(one, start=True)} is not clearly worse ({apart} points, 95 % interval {low} to {high}) and took "
            f"{one['seconds']:.0f} s: use it where time matters, or label more validation images to tell them apart."
        )
    gain = best.get("against_solved_head")
    if gain and best["adapter"] != "none" and gain["low"] > 0:
        said.append("Adapter layers clearly help on these images.")
    elif best["adapter"] == "none":
        said.append("Adapter layers do not help on these images: the frozen features are enough.")
    if forecast:
        more = forecast["score"] - best["score"]
        worth = "label more" if more >= WORTH else "images unlike those that you have will help more"
        said.append(
            f"Twice the training images ({forecast['images']:,}) would give about {percent(forecast['score'])}, "
            f"by the learning curve of the solved head: {worth}."
        )
    return said


def _as_good(one: Mapping[str, Any]) -> bool:
    lost = one.get("against_recommended")
    return lost is not None and lost["high"] >= 0


def _named(one: Mapping[str, Any], *, start: bool = False) -> str:
    options = [f"--adapter '{one['adapter']}'"]
    options += [f"--learning-rate {one['learning_rate']}"] if "learning_rate" in one else []
    name = f"the {one['name']}" if one["adapter"] == "none" else f"{one['name']} ({' '.join(options)})"
    return name[0].upper() + name[1:] if start else name
