"""Divide the rows of a source among processes that know nothing of each other: by the hash of each row's key."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from visionadapt.core.records import FrozenSource, Manifest, Record, Source
from visionadapt.errors import UsageError

_TEXT = re.compile(r"([0-9]{1,5})/([0-9]{1,5})")
_END = b"\x1e"


@dataclass(frozen=True)
class Shard:
    """One part of several: which one, from 1 on, and how many there are.

    A row's part depends on its key and on the number of parts alone: other rows that come or go move none.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `3/16`; raise UsageError where it is no part of a whole."""
        match = _TEXT.fullmatch(text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text} must be such as 3/16, the third of sixteen parts")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, key: str) -> bool:
        """Whether the row with a key is in this part."""
        return _place(_bytes(key), self.count) == self.number - 1

    def path(self, out: Path) -> Path:
        """Return the file of this part of a table: `predictions-00003-of-00016.csv`."""
        return out.with_name(f"{out.stem}-{self.number:05d}-of-{self.count:05d}{out.suffix}")


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _place(key: bytes, count: int) -> int:
    """The part of a key, from 0 on: `stable_hash("shard", key) % count`, faster, for there may be 10⁹ keys."""
    return (int.from_bytes(hashlib.blake2b(b"shard\x1f" + key, digest_size=8).digest(), "little") >> 1) % count


@dataclass(frozen=True)
class Part:
    """The rows of a source in one shard.

    Attributes:
        shard: which part.
        places: the number of each row among all rows, ascending.
        total: how many rows there are in all parts.
        keys: hash of all rows' keys in their order, hex: parts of one source agree in it.
    """

    shard: Shard
    places: Sequence[int]
    total: int
    keys: str


def rows_of(source: Source, shard: str | None) -> tuple[Manifest, Part | None]:
    """Return all rows of a source, or with a text such as `3/16` those in this shard, and which ones they are.

    Rows that are packed already stay where they are; others come without labels, which may be of any class here.
    """
    if shard is not None:
        return part_of(source, Shard.parse(shard))
    return (source.manifest() if isinstance(source, FrozenSource) else Manifest(source, _unlabelled(source))), None


def _unlabelled(source: Source) -> Iterator[Record]:
    return (replace(record, labels=()) if record.labels else record for record in source)


def part_of(source: Source, shard: Shard) -> tuple[Manifest, Part]:
    """Return the rows of a source that are in a shard, and which ones they are; the others are listed, but not kept.

    They are as in `rows_of`.
    """
    if isinstance(source, FrozenSource):
        every = source.manifest()
        part = part_in(every, shard)
        return every.select(part.places), part
    counted = _Counted(shard)
    manifest = Manifest(source, (record for record in _unlabelled(source) if counted.count(record.key)))
    return manifest, counted.part()


def part_in(manifest: Manifest, shard: Shard) -> Part:
    """Return which rows of a manifest are in a shard: 8 bytes for each of them."""
    counted = _Counted(shard)
    for row in range(len(manifest)):
        counted.count(manifest.key(row))
    return counted.part()


class _Counted:
    """Counts all rows by their keys, and keeps the places of those in a shard."""

    def __init__(self, shard: Shard) -> None:
        self.places, self._total = array("Q"), 0
        self._shard, self._place, self._parts = shard, shard.number - 1, shard.count
        self._digest = hashlib.blake2b(digest_size=16)

    def count(self, key: str) -> bool:
        """Count the next row; return whether it is in the shard."""
        data = _bytes(key)
        self._digest.update(data + _END)
        held = _place(data, self._parts) == self._place
        if held:
            self.places.append(self._total)
        self._total += 1
        return held

    def part(self) -> Part:
        """Return the shard's part of all rows counted."""
        return Part(self._shard, self.places, self._total, self._digest.hexdigest())


def all_parts(manifest: Manifest, count: int) -> list[Part]:
    """Return which rows of a manifest are in each of `count` shards: 8 bytes per row."""
    places, digest = [array("Q") for _ in range(count)], hashlib.blake2b(digest_size=16)
    for row in range(len(manifest)):
        key = _bytes(manifest.key(row))
        digest.update(key + _END)
        places[_place(key, count)].append(row)
    keys, total = digest.hexdigest(), len(manifest)
    return [Part(Shard(number, count), rows, total, keys) for number, rows in enumerate(places, 1)]
