"""What the image column of a database holds: paths, bytes, or URLs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from visionadapt.sources.database.queries import Values
from visionadapt.sources.database.row_keys import key_text
from visionadapt.sources.keys import plain_key
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.readers import texts
from visionadapt.sources.walk import Found

_BYTES = (bytes, bytearray, memoryview)


@dataclass(frozen=True)
class PathColumn:
    """Images that are files in a folder; the column `image` has their paths.

    Attributes:
        key: columns with the row's key; without any, the path is the key.
    """

    files: FilesBelow
    image: str
    key: Sequence[str] = ()

    def find(self, values: Values, size: int | None, look: bool) -> tuple[str, Found]:
        """Return the row's key, and where the image is; only if asked to `look`, with a look at the folder."""
        value = values[self.image]
        if isinstance(value, _BYTES):
            return _key(values, self.key), Found("", f"{self.image!r} holds bytes and no path")
        text = " ".join(texts(value))
        key = _key(values, self.key) if self.key else self.files.key(text)
        return key, self.files.find(text) if look else Found(text)


@dataclass(frozen=True)
class BytesColumn:
    """Images in the database itself, to be fetched by the columns `key`, which are the row's key as well."""

    key: Sequence[str]
    max_bytes: int

    def find(self, values: Values, size: int | None, look: bool) -> tuple[str, Found]:
        """Return the row's key, and the values to fetch the image by; `size` is its number of bytes."""
        problem = None
        if size is None:
            problem = "has no image"
        elif size > self.max_bytes:
            problem = f"has {size:,} bytes, more than the limit max_bytes={self.max_bytes:,}"
        return _fetched_by(values, self.key, problem)


@dataclass(frozen=True)
class UrlColumn:
    """Images on the web; the column `image` has their URLs, which stay in the database until an image is read.

    Attributes:
        key: as for `BytesColumn`.
        refusal: returns why a URL must not be requested; None where it may.
    """

    image: str
    key: Sequence[str]
    refusal: Callable[[str], str | None]

    def find(self, values: Values, size: int | None, look: bool) -> tuple[str, Found]:
        """Return the row's key, and the values to fetch its URL by."""
        text = " ".join(texts(values[self.image]))
        refused = self.refusal(text) if text else None
        problem = f"is not requested: {refused}" if refused else None if text else "names no image"
        return _fetched_by(values, self.key, problem)


def _fetched_by(values: Values, names: Sequence[str], problem: str | None) -> tuple[str, Found]:
    own: list[Any] = [values[name] for name in names]
    missing = f"has no {', '.join(names)}" if None in own else None
    return _key(values, names), Found(key_text(own), missing or problem)


def _key(values: Values, names: Sequence[str]) -> str:
    parts = (
        bytes(value).hex() if isinstance(value, _BYTES) else "/".join(texts(value))
        for value in (values[name] for name in names)
    )
    return plain_key("/".join(parts))
