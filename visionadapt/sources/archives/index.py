"""The images in archives, packed: where each is, and what the other members of its sample say of it."""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from visionadapt.core.columns import SparseStrings, Strings
from visionadapt.core.naming import stable_hash
from visionadapt.errors import ImageError
from visionadapt.sources.archives.files import ArchiveFile
from visionadapt.sources.archives.folders import Folders, read_folders
from visionadapt.sources.archives.members import Member, members, read_member
from visionadapt.sources.keys import plain_key
from visionadapt.sources.tables.row import json_row, nested_names
from visionadapt.sources.walk import is_ignored, is_sidecar, suffix_of

_TEXTS = frozenset({".cls", ".txt", ".json"})
_OTHERS = frozenset({".cls2", ".npy", ".npz", ".pth", ".pt", ".pyd", ".pickle", ".pkl", ".ten", ".tb", ".mp4", ".wav"})
_BESIDE = frozenset({"mask", "masks", "seg", "segm", "segmentation", "depth", "normal", "alpha", "gt", "annotation"})
"""What stands before the suffix of an image that tells about the sample's own image, such as `0001.mask.png`."""
_MOST_TEXT = 1 << 16
_OWN = ("image", "key", "shard", "folder", "split", "label")


@dataclass(frozen=True)
class Row:
    """An image in an archive: its key, its archive's number and name, its member's place, and its columns."""

    key: str
    shard: int
    place: str
    cells: Mapping[str, tuple[str, ...]]
    problem: str | None


@dataclass
class _Sample:
    """The members of one sample of the WebDataset layout, whose names agree up to the first dot.

    Attributes:
        name: what their names agree in.
        seen: the names of all.
        images: the images, and their numbers in the archive.
        texts: the columns that each text makes, by its name without suffix.
    """

    name: str = ""
    seen: set[str] = field(default_factory=set)
    images: list[tuple[int, Member]] = field(default_factory=list)
    texts: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)

    def cells_of(self, image: str) -> dict[str, tuple[str, ...]]:
        """Take what texts say of an image: those of its own name, before those of the sample's."""
        own = _without_suffix(image)
        others = {_without_suffix(member.name) for _, member in self.images} - {self.name}
        names = (self.name, own) if own != self.name else [text for text in self.texts if text not in others]
        return {name: cell for text in names for name, cell in self.texts.get(text, {}).items()}

    def unused(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return the texts that say nothing of any image here."""
        own = {_without_suffix(member.name) for _, member in self.images}
        every = self.name in own
        return {
            text: cells
            for text, cells in self.texts.items()
            if not every and text not in own and (text != self.name or not own)
        }


class Index:
    """The images of some archives, in the order in which they are stored.

    Attributes:
        archives: the archives and their names in messages.
        columns: names of all columns.
        ignored: how many members are neither images nor read as texts, by suffix.
        folders: what the folders of each archive mean.
    """

    def __init__(self, archives: Sequence[tuple[str, ArchiveFile]]) -> None:
        self.archives = archives
        self._titles = _short([title for title, _ in archives])
        self.columns: dict[str, None] = dict.fromkeys(_OWN)
        self.ignored: Counter[str] = Counter()
        self._names, self._cells, self._problems = Strings(), Strings(), SparseStrings()
        self._shards, self._numbers = array("I"), array("I")
        self._offsets, self._sizes, self._packed = array("Q"), array("Q"), array("Q")
        self._apart: dict[int, str] = {}
        self.folders: list[Folders] = []
        for shard, (title, archive) in enumerate(archives):
            first = len(self)
            self._add_archive(shard, title, archive)
            *above, last = self._titles[shard].split("/")
            names = (self._names[row] for row in range(first, len(self)))
            self.folders.append(read_folders(names, (last.partition(".")[0], *reversed(above))))
        self._keys = self._repeated()

    def __len__(self) -> int:
        return len(self._names)

    def rows(self) -> Iterator[Row]:
        """Yield the rows."""
        seen: dict[int, int] = {}
        for row in range(len(self)):
            yield self._row(row, seen)

    def _row(self, row: int, seen: dict[int, int]) -> Row:
        name, shard = self._names[row], self._shards[row]
        title = self._titles[shard]
        key = plain_key(name) or title
        number = stable_hash(key)
        if number in self._keys and seen.setdefault(number, shard) != shard:
            key = f"{title}/{key}"
        own = self._apart[row] if row in self._apart else self._cells[row]
        cells = {name: tuple(cell) for name, cell in json.loads(own).items()}
        place = f"{title}, member {self._numbers[row]}"
        return Row(key, shard, place, {**self._own_cells(name, shard, cells), **cells}, self._problems.get(row))

    def _own_cells(self, name: str, shard: int, cells: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """The columns that each row has; the label is that of `.cls`, or else the folder's name."""
        split, folder = self.folders[shard].of(name)
        classes = () if folder is None else (folder,)
        return {
            "image": (name,) if name else (),
            "key": (sample_name(name),) if name else (),
            "shard": (self._titles[shard],),
            "folder": classes,
            "split": (split,) if split else (),
            "label": cells.get("cls", classes),
        }

    def read(self, row: int, key: str, max_bytes: int) -> bytes:
        """Return the bytes of an image; raise ImageError where they cannot be read."""
        title, archive = self.archives[self._shards[row]]
        member = Member(self._names[row], self._offsets[row], self._sizes[row], self._packed[row])
        return read_member(archive, title, member, key, max_bytes)

    def version(self, row: int) -> str | None:
        """Return what changes when the archive of an image does; None where that is not known."""
        version = self.archives[self._shards[row]][1].version
        return None if version is None else f"{version}-{self._offsets[row]}-{self._sizes[row]}"

    def identity(self, row: int) -> str | None:
        """Return a text that no other bytes have had; None where nothing is known to be."""
        identity = self.archives[self._shards[row]][1].identity
        return None if identity is None else f"{identity}\x1f{self._offsets[row]}\x1f{self._sizes[row]}"

    def _add_archive(self, shard: int, title: str, archive: ArchiveFile) -> None:
        sample, first = _Sample(), len(self)
        apart: dict[str, dict[str, tuple[str, ...]]] = {}
        for number, member in enumerate(members(archive, title), 1):
            parts = member.name.split("/")
            if any(map(is_ignored, (part for part in parts if part not in {".", ".."}))):
                continue
            suffix = suffix_of(member.name)
            again = suffix in _TEXTS and member.name in sample.seen  # of another image that differs in its suffix
            if sample_name(member.name) != sample.name or not member.name or again:
                self._finish(shard, sample, apart)
                sample = _Sample(sample_name(member.name))
            sample.seen.add(member.name)
            if suffix in _TEXTS and member.problem is None and member.size <= _MOST_TEXT:
                text = sample.texts.setdefault(_without_suffix(member.name), {})
                text |= self._texts(archive, title, member, suffix)
            elif suffix in _OTHERS or suffix in _TEXTS or is_sidecar(member.name):
                self.ignored[suffix] += 1
            else:
                sample.images.append((number, member))
        self._finish(shard, sample, apart)
        self._join(first, apart)

    def _texts(self, archive: ArchiveFile, title: str, member: Member, suffix: str) -> dict[str, tuple[str, ...]]:
        """The columns that a text beside an image makes: `cls`, `txt`, or `json.NAME` for each name in it."""
        try:
            text = read_member(archive, title, member, member.name, _MOST_TEXT).decode("utf-8-sig").strip()
            if suffix != ".json":
                return {suffix[1:]: (text,)} if text else {}
            value: Any = json.loads(text)
        except (ImageError, UnicodeDecodeError, ValueError, RecursionError):
            self.ignored[f"{suffix} that cannot be read"] += 1
            return {}
        names = list(nested_names(value)) if isinstance(value, dict) else []
        return {f"json.{name}": cell for name, cell in json_row("", value, names).cells.items() if cell}

    def _finish(self, shard: int, sample: _Sample, apart: dict[str, dict[str, tuple[str, ...]]]) -> None:
        """Add the images of a sample, and to `apart` the texts that are beside no image of theirs."""
        for text, cells in sample.unused().items():
            apart.setdefault(text, {}).update(cells)
        whole = any(_without_suffix(member.name) == sample.name for _, member in sample.images)
        for number, member in sample.images:
            part = _without_suffix(member.name)[len(sample.name) + 1 :]
            if whole and part.lower() in _BESIDE:
                self.ignored[f".{part}{suffix_of(member.name)}"] += 1
                continue
            cells = sample.cells_of(member.name)
            self.columns.update(dict.fromkeys(cells))
            if member.problem is not None:
                self._problems.append(len(self), member.problem)
            self._names.append(member.name)
            self._cells.append(json.dumps(cells))
            self._shards.append(shard)
            self._numbers.append(number)
            self._offsets.append(member.offset)
            self._sizes.append(member.size)
            self._packed.append(member.packed)

    def _join(self, first: int, apart: Mapping[str, Mapping[str, tuple[str, ...]]]) -> None:
        """Add texts to the images of their names in the rows from `first` on, wherever the archive stores them."""
        used: set[str] = set()
        for row in range(first, len(self)) if apart else ():
            name = self._names[row]
            texts = [text for text in (sample_name(name), _without_suffix(name)) if text in apart]
            if texts:
                cells = {column: cell for text in texts for column, cell in apart[text].items()}
                self._apart[row] = json.dumps({**cells, **json.loads(self._cells[row])})
                self.columns.update(dict.fromkeys(cells))
                used.update(texts)
        for text in apart.keys() - used:
            self.ignored.update({f".{column.partition('.')[0]} of no image" for column in apart[text]})

    def _repeated(self) -> frozenset[int]:
        """The hashes of keys that several members have."""
        hashes = np.fromiter((stable_hash(plain_key(self._names[row])) for row in range(len(self))), np.uint64)
        hashes.sort()
        return frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def sample_name(name: str) -> str:
    """Return a member's name up to the first dot of its last part, as the WebDataset layout has it."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _without_suffix(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 - a name in an archive


def _short(titles: Sequence[str]) -> list[str]:
    """The names of archives below the folder that all are in."""
    parts = [title.replace(os.sep, "/").split("/") for title in titles]
    alike = takewhile(lambda names: len(set(names)) == 1, zip(*(each[:-1] for each in parts), strict=False))
    above = len(list(alike))
    return ["/".join(each[above:]) for each in parts]
