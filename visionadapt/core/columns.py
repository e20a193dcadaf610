"""The columns of a manifest: what they offer, and flat arrays in memory that offer it."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Strings:
    """A column of texts in one block of bytes."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._ends = array("Q", [0])

    def append(self, text: str) -> None:
        """Add one row."""
        self._blob += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._blob))

    def __getitem__(self, row: int) -> str:
        return self._blob[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogatepass")

    def each(self, rows: Iterable[int]) -> Iterator[str]:
        """The texts of some rows."""
        return map(self.__getitem__, rows)


class SparseStrings:
    """A column of texts that only some rows have: their numbers in ascending order, and the texts."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._texts = Strings()

    def append(self, row: int, text: str) -> None:
        """Add the text of a row behind all that have one."""
        self._rows.append(row)
        self._texts.append(text)

    def get(self, row: int) -> str | None:
        """The text of a row; None where it has none."""
        place = bisect_left(self._rows, row)
        return self._texts[place] if place < len(self._rows) and self._rows[place] == row else None

    def each(self, rows: Iterable[int]) -> Iterator[str | None]:
        """The texts of some rows."""
        return map(self.get, rows)


class Categories:
    """A column of few different texts (or None): a code a row, and the names once."""

    def __init__(self) -> None:
        self._codes = array("i")
        self._code_of: dict[str | None, int] = {}
        self._names: list[str | None] = []

    def append(self, text: str | None) -> None:
        """Add one row."""
        if text not in self._code_of:
            self._code_of[text] = len(self._names)
            self._names.append(text)
        self._codes.append(self._code_of[text])

    def __getitem__(self, row: int) -> str | None:
        return self._names[self._codes[row]]

    def each(self, rows: Iterable[int]) -> Iterator[str | None]:
        """The texts of some rows."""
        return map(self.__getitem__, rows)


class Labels:
    """A column of class indices: none, one or several a row."""

    def __init__(self) -> None:
        self._indices = array("i")
        self._ends = array("Q", [0])

    def append(self, indices: Iterable[int]) -> None:
        """Add one row."""
        self._indices.extend(indices)
        self._ends.append(len(self._indices))

    def __getitem__(self, row: int) -> Sequence[int]:
        return self._indices[self._ends[row] : self._ends[row + 1]]

    def each(self, rows: Iterable[int]) -> Iterator[Sequence[int]]:
        """The indices of some rows."""
        return map(self.__getitem__, rows)


class Column(Protocol[T_co]):
    """A value for every row."""

    def __getitem__(self, row: int, /) -> T_co: ...

    def each(self, rows: Sequence[int], /) -> Iterator[T_co]:
        """The values of some rows."""


class SparseColumn(Protocol):
    """A text for some rows."""

    def get(self, row: int, /) -> str | None:
        """The text of a row; None where it has none."""

    def each(self, rows: Sequence[int], /) -> Iterator[str | None]:
        """The texts of some rows."""


@dataclass(frozen=True)
class Columns:
    """What is known of each row of a manifest, by the row's number.

    Attributes:
        count: how many rows there are.
        labels: class indices.
        further: by its name, each column that a `Record` has in `columns`.
    """

    count: int
    keys: Column[str]
    labels: Column[Sequence[int]]
    groups: Column[str | None]
    splits: Column[str | None]
    locations: SparseColumn
    problems: SparseColumn
    further: Mapping[str, SparseColumn]
