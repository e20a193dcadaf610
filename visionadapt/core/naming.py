"""Stable names: natural sort order, and a hash that is the same on every machine."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key in which `img2` stands before `img10`; ties are broken by the name itself.

    >>> sorted(["b10", "b9", "a"], key=natural_key)
    ['a', 'b9', 'b10']
    """
    parts = [part for part in re.split(r"([0-9]+)", unicodedata.normalize("NFC", name)) if part]
    return (*(_natural_part(part) for part in parts), (-1, 0, name))


def _natural_part(part: str) -> tuple[int, int, str]:
    if part.isascii() and part.isdigit():
        number = part.lstrip("0")
        return (0, len(number), number)
    return (1, 0, part.casefold())


def stable_hash(*parts: object) -> int:
    """Return a 63-bit hash of some values that is the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
