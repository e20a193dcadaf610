"""Stable names: natural sort order, names that are one class, and a hash that is the same on every machine."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"[+-]?[0-9]{1,14}(?:\.[0-9]{0,14})?")
_SEPARATORS = re.compile(r"(?<=[^\W_])[\s_‐‑–-]+(?=[^\W_])")
_COPY = re.compile(r"(.+?)(?:[\s_-]+(?:copy|copie|kopie)[\s_-]*(?:\(?[0-9]+\)?)?|\s*\([0-9]+\))", re.IGNORECASE)
"""The name of a copy of a folder, as file managers give it: `cat copy`, `cat - Copy (2)`, `cat (1)`."""
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))


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


def near_duplicate_classes(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of names that are surely one class, written in several ways; each in the given order.

    Names are one class if they differ only in case, compatible characters (Unicode NFKC), surrounding white space or
    the separators between words (spaces, `_`, `-`), or as numbers in their zeros (`7`, `07`, `7.0`), or if one is the
    name of a copy of the other (`cat copy`, `cat (1)`). `A` and `A-` are two classes.

    >>> near_duplicate_classes(["Cat", "dog", "cat", "0", "0.0"])
    (('Cat', 'cat'), ('0', '0.0'))
    """
    folded = {name: folded_name(name) for name in names}
    known = frozenset(folded.values())
    alike: dict[str, dict[str, None]] = {}
    for name, own in folded.items():
        copy = _COPY.fullmatch(name.strip())
        copied = folded_name(copy[1]) if copy else own
        alike.setdefault(copied if copied in known else own, {})[name] = None
    return tuple(tuple(group) for group in alike.values() if len(group) > 1)


def letters_of(name: str) -> str:
    """Return a name in lower case without white space and punctuation."""
    return re.sub(r"[\W_]+", "", name).casefold()


def folded_name(name: str) -> str:
    """Return what all spellings of a class name have in common, as `near_duplicate_classes` compares them."""
    plain = unicodedata.normalize("NFKC", name).translate(_INVISIBLE).strip()
    if _NUMBER.fullmatch(plain):
        return f"{Decimal(plain).normalize() + 0:f}"
    return unicodedata.normalize("NFKC", _SEPARATORS.sub(" ", plain.casefold())) or name


def stable_hash(*parts: object) -> int:
    """Return a 63-bit hash of some values that is the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return some names in natural order as a text, and how many more there are; `none` without any.

    >>> listed(["b", "a10", "a9", "c"])
    'a9, a10, b and 1 more'
    """
    ordered = sorted(names, key=natural_key)
    more = [f"{len(ordered) - most:,} more"] if len(ordered) > most else []
    *first, last = [*ordered[:most], *more] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last
