"""The columns and row numbers of a manifest, in flat buffers: in memory, or mapped from a file."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NewBuffer = Callable[[str, str], Any]
"""Creates an empty buffer from its name and the typecode of its numbers: an `array`, or something that grows like one.

A buffer with content may be of any kind that is read like an `array`, such as a memoryview of a mapped file."""

_BLOCK = 1 << 16
_SHARED_FROM = 1 << 18


def in_memory(name: str, typecode: str) -> Any:
    """Create an empty buffer in memory."""
    return bytearray() if typecode == "B" else array(typecode)


class Strings:
    """A column of strings: their UTF-8 in one buffer, and in another the end of each, after a 0.

    `errors` is the error handler for bytes that are not UTF-8.
    """

    def __init__(self, new: NewBuffer = in_memory, name: str = "", errors: str = "surrogatepass") -> None:
        self._ends, self._data, self._errors = new(f"{name}.ends", "Q"), new(f"{name}.bytes", "B"), errors
        if not len(self._ends):
            self._ends.append(0)

    def append(self, text: str) -> None:
        """Add one row."""
        self._data.extend(text.encode("utf-8", "surrogatepass"))
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._ends[row] : self._ends[row + 1]], "utf-8", self._errors)


class SparseStrings:
    """A column of strings for only some rows: ascending row numbers and the strings."""

    def __init__(self, new: NewBuffer = in_memory, name: str = "", errors: str = "surrogatepass") -> None:
        self._rows, self._texts = new(f"{name}.rows", "I"), Strings(new, name, errors)

    def append(self, row: int, text: str) -> None:
        """Add the string of a row after all rows that have one."""
        self._rows.append(row)
        self._texts.append(text)

    def get(self, row: int) -> str | None:
        """Return the string of a row; None if it has none."""
        rows = self._rows
        every = row < len(rows) and rows[row] == row  # all rows up to this one have a string
        place = row if every else bisect_left(rows, row)
        return self._texts[place] if place < len(rows) and rows[place] == row else None

    def each(self, rows: Sequence[int]) -> Iterator[str | None]:
        """Iterate over the strings of some rows."""
        return map(self.get, rows) if len(self._rows) else repeat(None, len(rows))


class Categories:
    """A column of few distinct strings (or None): one code per row, 0 for None, and each string once."""

    def __init__(self, new: NewBuffer = in_memory, name: str = "", errors: str = "surrogatepass") -> None:
        self._codes, self._names = new(f"{name}.codes", "I"), Strings(new, f"{name}.names", errors)
        self._code_of: dict[str | None, int] = {None: 0}

    def append(self, text: str | None) -> None:
        """Add one row."""
        if text is not None and text not in self._code_of:
            self._code_of[text] = len(self._code_of)
            self._names.append(text)
        self._codes.append(self._code_of[text])

    def __getitem__(self, row: int) -> str | None:
        code = self._codes[row]
        return self._names[code - 1] if code else None

    def each(self, rows: Sequence[int]) -> Iterator[str | None]:
        """Iterate over the strings of some rows."""
        (codes,), names = _arrays(self._codes), {0: None}
        for block in _blocks(rows):
            found = codes[block].tolist()
            names |= {code: self._names[code - 1] for code in set(found) - names.keys()}
            yield from map(names.__getitem__, found)

    get = __getitem__


class Labels:
    """A column of class indices: none, one or several per row."""

    def __init__(self, new: NewBuffer = in_memory) -> None:
        self._ends, self._indices = new("labels.ends", "Q"), new("labels", "i")
        if not len(self._ends):
            self._ends.append(0)

    def append(self, indices: Sequence[int]) -> None:
        """Add one row."""
        self._indices.extend(indices)
        self._ends.append(len(self._indices))

    def __getitem__(self, row: int) -> Sequence[int]:
        indices: list[int] = self._indices[self._ends[row] : self._ends[row + 1]].tolist()
        return indices

    def each(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        """Iterate over the indices of some rows."""
        ends, indices = _arrays(self._ends, self._indices)
        for block in _blocks(rows):
            starts, stops = ends[block], ends[block + 1]
            if (stops - starts == 1).all():
                yield from zip(indices[starts].tolist(), strict=True)
            else:
                yield from (indices[i:j].tolist() for i, j in zip(starts.tolist(), stops.tolist(), strict=True))


class SparseColumn(Protocol):
    """A string for some rows."""

    def get(self, row: int, /) -> str | None:
        """Return the string of a row; None if it has none."""


@dataclass(frozen=True)
class Columns:
    """The content of a manifest by row number; `further` has the further columns of the records by name."""

    count: int
    keys: Strings
    labels: Labels
    groups: Categories
    splits: Categories
    locations: SparseColumn
    problems: SparseStrings
    further: Mapping[str, SparseColumn]


class RowNumbers(Sequence[int]):
    """The numbers of the selected rows, 4 bytes each; spawned processes map many of them from one file."""

    def __init__(self, numbers: Iterable[int]) -> None:
        taken = isinstance(numbers, memoryview) or (isinstance(numbers, array) and numbers.typecode == "I")
        self._numbers: Any = numbers if taken else array("I", numbers)
        self._path: str | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return self._numbers[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.context import get_spawning_popen

        if len(self) >= _SHARED_FROM and get_spawning_popen() is not None:
            return _mapped_numbers, (self._file(),)
        return RowNumbers, (array("I", self._numbers),)

    def _file(self) -> str:
        """Return a file with the numbers, which is removed together with this object."""
        if self._path is None:
            descriptor, self._path = tempfile.mkstemp(prefix="visionadapt-rows-")
            weakref.finalize(self, _remove, self._path, os.getpid())
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._numbers)
        return self._path


def _arrays(*buffers: Any) -> list[NDArray[Any]]:
    """Return the buffers as arrays without a copy; NumPy is imported here so that core loads without it."""
    import numpy as np

    return [np.asarray(buffer) for buffer in buffers]


def _blocks(rows: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers in blocks."""
    import numpy as np

    for start in range(0, len(rows), _BLOCK):
        yield np.asarray(rows[start : start + _BLOCK], dtype=np.int64)


def _mapped_numbers(path: str) -> RowNumbers:
    with Path(path).open("rb") as file:
        return RowNumbers(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).cast("I"))


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)
