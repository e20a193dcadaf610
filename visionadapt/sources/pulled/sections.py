"""Sections of numbers in one mapped file, each checked before anything follows where it leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sections:
    """The sections of a file that nobody vouches for; each method raises ValueError where one does not fit.

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
        """The numbers of a section, which must be of this kind and, where it is given, this many."""
        found, offset, size = self.places[name]
        section: Any = self.data[offset : offset + size]
        check(found == kind and offset >= 0 and size >= 0 and offset + size <= len(self.data))
        numbers: memoryview = section.cast(kind)
        check(count is None or len(numbers) == count)
        return numbers

    def ends(self, name: str, rows: int | None, last: int) -> memoryview:
        """Behind a 0, where the part of each row ends in another section that ends at `last`."""
        ends = self.numbers(name, "Q", None if rows is None else rows + 1)
        places = np.asarray(ends)
        check(len(places) > 0 and places[0] == 0 and places[-1] == last and (places[1:] >= places[:-1]).all())
        return ends


def check(fits: bool | np.bool_) -> None:
    """Raise ValueError where it does not fit."""
    if not fits:
        raise ValueError("the sections do not fit together")


def different_texts(values: Any) -> list[str]:
    """The values, which must be a list of different texts; raise ValueError where they are none."""
    check(isinstance(values, list) and all(isinstance(value, str) for value in values))
    check(len(set(values)) == len(values))
    return list(values)
