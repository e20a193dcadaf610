"""Advice on a comparison: a simpler candidate that is as good is named, and more images only where they pay."""

from __future__ import annotations

from typing import Any

from visionadapt.evaluation.advice import advice


def candidates(difference: float, low: float, high: float) -> list[dict[str, Any]]:
    """A solved head of 0.80 in 5 s and an adapter of 0.80 − `difference` in 100 s; the interval is of the head."""
    behind = {"difference": difference, "low": low, "high": high}
    ahead = {"difference": -difference, "low": -high, "high": -low}
    return [
        {"name": "solved head", "adapter": "none", "score": 0.8, "seconds": 5.0, "against_recommended": behind},
        {
            "name": "other",
            "adapter": "lora",
            "score": 0.8 - difference,
            "seconds": 100.0,
            "against_solved_head": ahead,
        },
    ]


def test_a_quicker_candidate_within_the_interval_is_named() -> None:
    told = " ".join(advice(candidates(-0.02, -0.05, 0.01), "other", None))
    assert "solved head" in told
    assert "−2.0" in told


def test_one_that_is_clearly_worse_is_not() -> None:
    assert "solved head" not in " ".join(advice(candidates(-0.1, -0.15, -0.05), "other", None))


def test_more_images_are_advised_by_what_they_would_gain() -> None:
    tried = candidates(-0.1, -0.15, -0.05)
    little = advice(tried, "other", {"images": 240, "score": 0.905})[-1]
    much = advice(tried, "other", {"images": 240, "score": 0.93})[-1]
    assert "93.0" in much
    assert little.split(":")[1] != much.split(":")[1]
