"""The names of the splits in folders and columns: train, val and test."""

from __future__ import annotations

from visionadapt.errors import SourceError

SPLIT_NAMES = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


def split_named(name: str, where: str) -> str:
    """Return `train`, `val` or `test` for a name in any case; raise SourceError, beginning with `where`, for others."""
    split = SPLIT_NAMES.get(name.casefold())
    if split is None:
        raise SourceError(f"{where} {name!r}; it must be train, val (or validation, valid) or test")
    return split
