"""The objects below a place in a bucket, packed: their names, sizes and ETags, and the folders that the names make."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterator, Sequence
from itertools import pairwise

from visionadapt.core.columns import Strings
from visionadapt.core.naming import natural_key
from visionadapt.sources.walk import Found, is_ignored


class ObjectList:
    """Objects by their names, without a Python object per row; hidden ones and the leftovers of systems are left out.

    A name is the path below the place. Folders are what stands before a slash. About 100 bytes per object.
    """

    def __init__(self) -> None:
        self._names, self._etags = Strings(), Strings()
        self._sizes = array("Q")
        self._order: Sequence[int] = range(0)
        self._folders: dict[str, list[str]] = {"": []}

    def append(self, name: str, size: int, etag: str) -> None:
        """Add an object."""
        parts = name.split("/")
        if any(map(is_ignored, parts)):
            return
        self._names.append(name)
        self._etags.append(etag)
        self._sizes.append(size)
        below = ""
        for part in parts[:-1]:
            path = f"{below}/{part}" if below else part
            if path not in self._folders:
                self._folders[path] = []
                self._folders[below].append(part)
            below = path

    def sort(self) -> ObjectList:
        """Bring the names into the order of their characters, in which buckets list them; return the list itself."""
        count = len(self._names)
        names = self._names
        if all(names[row - 1] < names[row] for row in range(1, count)):
            self._order = range(count)
        else:
            self._order = array("I", sorted(range(count), key=names.__getitem__))
        return self

    def __len__(self) -> int:
        return len(self._order)

    def find(self, name: str) -> int | None:
        """Return the number of the object with a name; None where there is none."""
        place = bisect_left(self._order, name, key=self._names.__getitem__)
        row = self._order[place] if place < len(self) else None
        return row if row is not None and self._names[row] == name else None

    def size(self, row: int) -> int:
        """Return the number of bytes of an object."""
        return self._sizes[row]

    def etag(self, row: int) -> str:
        """Return the ETag of an object; empty where the store has none."""
        return self._etags[row]

    def folders(self, below: str) -> Sequence[str]:
        """Return the names of the folders in a folder; none where it is no folder."""
        return self._folders.get(below, ())

    def files(self, below: str) -> Iterator[str]:
        """Yield the names of the objects that are in a folder itself."""
        start = len(below) + 1 if below else 0
        return (self._names[row][start:] for row in self._rows_in(below))

    def walk(self, below: str, without: Container[str] = frozenset()) -> Iterator[Found]:
        """Yield the objects below a folder in the order of `walk.walk`; what `without` names is left out."""
        waiting: list[Iterator[int | str]] = [self._entries(below)]
        while waiting:
            entry = next(waiting[-1], None)
            if entry is None:
                waiting.pop()
            elif isinstance(entry, int):
                name = self._names[entry]
                if name not in without:
                    yield Found(name)
            elif entry not in without:
                waiting.append(self._entries(entry))

    def _entries(self, below: str) -> Iterator[int | str]:
        """The objects and folders in a folder, in natural order; sorted only if they are not in it already."""
        start = len(below) + 1 if below else 0
        folders = [f"{below}/{name}" if below else name for name in self._folders.get(below, ())]

        def key(entry: int | str) -> tuple[object, ...]:
            return natural_key((entry if isinstance(entry, str) else self._names[entry])[start:])

        if not folders:
            rows = array("I", self._rows_in(below))
            if all(first <= second for first, second in pairwise(map(key, rows))):
                return iter(rows)
            return iter(sorted(rows, key=key))
        entries: list[int | str] = [*folders, *self._rows_in(below)]
        return iter(sorted(entries, key=key))

    def _rows_in(self, below: str) -> Iterator[int]:
        """The numbers of the objects in a folder itself; those in folders of it are skipped at once."""
        prefix = f"{below}/" if below else ""
        place = bisect_left(self._order, prefix, key=self._names.__getitem__)
        while place < len(self):
            name = self._names[self._order[place]]
            if not name.startswith(prefix):
                return
            folder, slash, _ = name[len(prefix) :].partition("/")
            if slash:
                place = bisect_left(self._order, f"{prefix}{folder}0", place, key=self._names.__getitem__)  # after "/"
            else:
                yield self._order[place]
                place += 1
