"""The split (train, val, test) of each row: as the source assigns it, or as training would."""

from __future__ import annotations

from dataclasses import dataclass

from visionadapt.core.records import Manifest
from visionadapt.data.splits import split
from visionadapt.errors import SplitError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class AssignedSplits:
    """The split of each row.

    Attributes:
        of: train, val or test; None where rows cannot be split.
        origin: how the splits came about, as one line.
    """

    of: tuple[str | None, ...]
    origin: str


def assign_splits(manifest: Manifest, val: float, seed: int) -> AssignedSplits:
    """Assign the splits that `train --val --seed` would use: the rows' own, where they have both train and val."""
    own = tuple(manifest.split(index) for index in range(len(manifest)))
    if {"train", "val"} <= set(own):
        return AssignedSplits(tuple(name or "train" for name in own), "as in the source")
    try:
        held_out = split(manifest, val, seed)[1]
    except SplitError as error:
        return AssignedSplits(own, f"training cannot split the rows: {error}")
    keys = {held_out.key(index) for index in range(len(held_out))}
    assigned = (
        "test" if name == "test" else "val" if manifest.key(index) in keys else "train"
        for index, name in enumerate(own)
    )
    return AssignedSplits(tuple(assigned), f"as train --val {val:g} --seed {seed} splits them")
