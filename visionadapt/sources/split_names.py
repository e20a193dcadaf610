"""The names of the splits in folders and columns: train, val and test."""

from __future__ import annotations

import re

from visionadapt.errors import SourceError

SPLIT_NAMES = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


def split_named(name: str, where: str) -> str:
    """Return `train`, `val` or `test` for a name in any case; raise SourceError, beginning with `where`, for others."""
    split = SPLIT_NAMES.get(name.casefold())
    if split is None:
        raise SourceError(f"{where} {name!r}; it must be train, val (or validation, valid) or test")
    return split


def flagged_split(column: str, flagged: bool, where: str) -> str:
    """Return the split of a row that a column such as `is_valid` marks, or does not mark.

    Raises:
        SourceError: the column's name does not say which split it marks; the message begins with `where`.
    """
    name = re.sub(r"^is_?", "", column.rpartition(".")[2].casefold())
    split = SPLIT_NAMES.get(name)
    if split is None or (split == "train" and not flagged):
        raise SourceError(
            f"{where} {flagged}, no split; write train, val or test there: only is_valid, is_test are true or false"
        )
    return split if flagged else "train"
