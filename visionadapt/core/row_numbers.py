"""Compact row numbers, shared between worker processes of any start method."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_SHARED_FROM = 1 << 18


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


def _mapped_numbers(path: str) -> RowNumbers:
    with Path(path).open("rb") as file:
        return RowNumbers(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).cast("I"))


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)
