"""What the image column of a database holds: paths, bytes, or URLs. Each function returns a row's key and its image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from visionadapt.sources.database.queries import Values
from visionadapt.sources.database.row_keys import key_text
from visionadapt.sources.keys import plain_key
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tables.row import texts
from visionadapt.sources.walk import Found

_BYTES = (bytes, bytearray, memoryview)


def path_in(values: Values, image: str, key: Sequence[str], files: FilesBelow, look: bool) -> tuple[str, Found]:
    """The column `image` has a path, which is the key unless there is one; without `look`, it is not looked for."""
    value = values[image]
    if isinstance(value, _BYTES):
        return _key(values, key), Found("", f"{image!r} holds bytes and no path")
    text = " ".join(texts(value))
    return _key(values, key) if key else files.key(text), files.find(text) if look else Found(text)


def bytes_in(values: Values, key: Sequence[str], size: int | None, max_bytes: int) -> tuple[str, Found]:
    """The database has the image itself, to be fetched by the columns `key`; `size` is its number of bytes."""
    problem = None
    if size is None:
        problem = "has no image"
    elif size > max_bytes:
        problem = f"has {size:,} bytes, more than the limit max_bytes={max_bytes:,}"
    return _fetched_by(values, key, problem)


def url_in(values: Values, image: str, key: Sequence[str], refusal: Callable[[str], str | None]) -> tuple[str, Found]:
    """The column `image` has a URL, which stays in the database until the image is read, by the columns `key`."""
    text = " ".join(texts(values[image]))
    refused = refusal(text) if text else None
    return _fetched_by(values, key, f"is not requested: {refused}" if refused else None if text else "names no image")


def _fetched_by(values: Values, key: Sequence[str], problem: str | None) -> tuple[str, Found]:
    own = [values[name] for name in key]
    missing = f"has no {', '.join(key)}" if None in own else None
    return _key(values, key), Found(key_text(own), missing or problem)


def _key(values: Values, key: Sequence[str]) -> str:
    parts = (
        bytes(value).hex() if isinstance(value, _BYTES) else "/".join(texts(value))
        for value in (values[name] for name in key)
    )
    return plain_key("/".join(parts))
