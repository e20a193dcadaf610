"""How a row of a database leads to its picture: by a path, or by the key of the cell with its bytes or its URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from visionadapt.sources.database.queries import Cells
from visionadapt.sources.database.row_keys import pack
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.readers import texts
from visionadapt.sources.walk import Found
from visionadapt.sources.web.image_fields import plain_key

_BYTES = (bytes, bytearray, memoryview)


@dataclass(frozen=True)
class Files:
    """Images that are files in a folder; the column `image` has their paths.

    Attributes:
        key: columns whose cells are the row's key; without any, the path is.
    """

    inside: FilesBelow
    image: str
    key: Sequence[str] = ()

    def find(self, cells: Cells, size: int | None, look: bool) -> tuple[str, Found]:
        """The row's key, and where the picture is; unless told to `look`, without a look at the folder."""
        value = cells[self.image]
        if isinstance(value, _BYTES):
            return _key(cells, self.key), Found("", f"{self.image!r} holds bytes and no path")
        text = " ".join(texts(value))
        key = _key(cells, self.key) if self.key else self.inside.key(text)
        return key, self.inside.find(text) if look else Found(text)


@dataclass(frozen=True)
class Cell:
    """Images that are cells of the database, to be fetched by the columns `key`, which are the row's key as well."""

    key: Sequence[str]
    max_bytes: int

    def find(self, cells: Cells, size: int | None, look: bool) -> tuple[str, Found]:
        """The row's key, and the values that the picture can be fetched by; `size` is its number of bytes."""
        values = [cells[name] for name in self.key]
        return _key(cells, self.key), Found(pack(values), _unnamed(values, self.key) or self._problem(size))

    def _problem(self, size: int | None) -> str | None:
        if size is None:
            return "has no picture"
        if size > self.max_bytes:
            return f"has {size:,} bytes, more than the limit max_bytes={self.max_bytes:,}"
        return None


@dataclass(frozen=True)
class Links:
    """Images on the web; the column `image` has their URLs, which stay in the database until a picture is read.

    Attributes:
        key: as for `Cell`.
        refusal: why a URL must not be asked; None where it may.
    """

    image: str
    key: Sequence[str]
    refusal: Callable[[str], str | None]

    def find(self, cells: Cells, size: int | None, look: bool) -> tuple[str, Found]:
        """The row's key, and the values that its URL can be fetched by."""
        text, values = " ".join(texts(cells[self.image])), [cells[name] for name in self.key]
        refused = self.refusal(text) if text else None
        problem = f"is not asked for: {refused}" if refused else None if text else "names no picture"
        return _key(cells, self.key), Found(pack(values), _unnamed(values, self.key) or problem)


def _unnamed(values: Sequence[Any], names: Sequence[str]) -> str | None:
    return f"has no {', '.join(names)}" if None in values else None


def _key(cells: Cells, names: Sequence[str]) -> str:
    values = (cells[name] for name in names)
    parts = (bytes(value).hex() if isinstance(value, _BYTES) else "/".join(texts(value)) for value in values)
    return plain_key("/".join(parts))
