"""Sections of numbers in one mapped file, checked before any of them is used as an offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionadapt.core.columns import Categories, Labels, SparseStrings, Strings

_ERRORS = "backslashreplace"
_BLOCK = 1 << 16
"""Numbers that are compared at once."""


@dataclass(frozen=True)
class Sections:
    """The sections of an untrusted file; each method raises ValueError where a section is inconsistent.

    Attributes:
        data: the whole file.
        places: kind (as `array` has it), offset and size in bytes of each section, by name.
        count: how many rows there are.
    """

    data: memoryview
    places: Mapping[str, Sequence[Any]]
    count: int

    def __post_init__(self) -> None:
        check(isinstance(self.count, int) and self.count >= 0)

    def numbers(self, name: str, kind: str, count: int | None = None) -> memoryview:
        """Return the numbers of a section, which must be of this kind and, where given, this many."""
        found, offset, size = self.places[name]
        section: Any = self.data[offset : offset + size]
        check(found == kind and offset >= 0 and size >= 0 and offset + size <= len(self.data))
        numbers: memoryview = section.cast(kind)
        check(count is None or len(numbers) == count)
        return numbers

    def strings(self, name: str, rows: int | None = None) -> Strings:
        """The strings of `rows` rows, or of as many as there are."""
        self._check_ends(f"{name}.ends", rows, len(self.numbers(f"{name}.bytes", "B")))
        return Strings(self.numbers, name, _ERRORS)

    def sparse(self, name: str) -> SparseStrings:
        """The strings of some rows, whose numbers must ascend."""
        rows = np.asarray(self.numbers(f"{name}.rows", "I"))
        check(not len(rows) or (rows[-1] < self.count and _ascends(rows, np.greater)))
        self.strings(name, len(rows))
        return SparseStrings(self.numbers, name, _ERRORS)

    def categories(self, name: str) -> Categories:
        """The codes of all rows, each of which must have a string."""
        codes = np.asarray(self.numbers(f"{name}.codes", "I", self.count))
        check(codes.max(initial=0) <= len(self.strings(f"{name}.names")))
        return Categories(self.numbers, name, _ERRORS)

    def labels(self, classes: int) -> Labels:
        """The class indices of all rows, which must be below `classes`."""
        indices = np.asarray(self.numbers("labels", "i"))
        check(indices.min(initial=0) >= 0 and indices.max(initial=-1) < classes)
        self._check_ends("labels.ends", self.count, len(indices))
        return Labels(self.numbers)

    def _check_ends(self, name: str, rows: int | None, last: int) -> None:
        """The ends of each row's values must ascend from 0 to `last`."""
        ends = np.asarray(self.numbers(name, "Q", None if rows is None else rows + 1))
        check(len(ends) > 0 and ends[0] == 0 and ends[-1] == last and _ascends(ends, np.greater_equal))


def _ascends(numbers: NDArray[Any], compare: np.ufunc) -> bool:
    """Whether each number compares so to the one before, block by block: a process keeps memory once it was taken."""
    starts = range(0, max(len(numbers) - 1, 0), _BLOCK)
    later = (numbers[start + 1 : start + 1 + _BLOCK] for start in starts)
    return all(
        bool(compare(each, numbers[start : start + len(each)]).all()) for start, each in zip(starts, later, strict=True)
    )


def check(fits: bool | np.bool_) -> None:
    """Raise ValueError where a condition does not hold."""
    if not fits:
        raise ValueError("the sections do not fit together")


def different_texts(values: Any) -> list[str]:
    """Return the values, which must be a list of different strings; raise ValueError where they are not."""
    check(isinstance(values, list) and all(isinstance(value, str) for value in values))
    check(len(set(values)) == len(values))
    return list(values)
