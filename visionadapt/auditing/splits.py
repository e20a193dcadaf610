"""On which side each row of a source stands: as it says itself, or as training would divide it."""

from __future__ import annotations

from dataclasses import dataclass

from visionadapt.core.records import Manifest
from visionadapt.data.splits import split
from visionadapt.errors import SplitError


@dataclass(frozen=True)
class Division:
    """The part of each row, and how it was found.

    Attributes:
        parts: train, val or test; None where rows cannot be divided.
        told: how the parts came about, as one line.
    """

    parts: tuple[str | None, ...]
    told: str


def divide(manifest: Manifest, val: float, seed: int) -> Division:
    """The parts that `train --val --seed` would take: those of the rows themselves, where they name them."""
    own = tuple(manifest.split(index) for index in range(len(manifest)))
    if {"train", "val"} <= set(own):
        return Division(tuple(part or "train" for part in own), "as the source divides them")
    try:
        held_out = split(manifest, val, seed)[1]
    except SplitError as error:
        return Division(own, f"not divided by training: {error}")
    keys = {held_out.key(index) for index in range(len(held_out))}
    parts = (
        "test" if part == "test" else "val" if manifest.key(index) in keys else "train"
        for index, part in enumerate(own)
    )
    return Division(tuple(parts), f"as `train --val {val:g} --seed {seed}` divides them")
