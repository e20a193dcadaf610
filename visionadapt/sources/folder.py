"""`FolderSource`: class folders, or train/val/test folders that hold class folders."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from visionadapt.core.naming import natural_key
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import check_size, flag, mode_of
from visionadapt.sources.base import BaseSource
from visionadapt.sources.keys import UniqueKeys, key_of
from visionadapt.sources.split_names import SPLIT_NAMES, split_named
from visionadapt.sources.walk import IMAGE_SUFFIXES, Found, is_ignored, link_problem, walk
from visionadapt.system.storage import file_version, read_file


@dataclass(frozen=True, repr=False)
class FolderSource(BaseSource):
    """Images in `root/<class>/*` or `root/{train,val|validation|valid,test}/<class>/*`, nested to any depth.

    The class is the folder's name in Unicode NFC; classes are in natural order (`2` before `10`). Hidden files and the
    leftovers of operating systems are skipped; every other file in a class folder is a row, and so is an image outside
    of all class folders (it is yielded with a problem).

    Args:
        root: the folder.
        labelled: False takes every file below the root as an unlabelled image.
        group: a regular expression to search in each key; what its brackets match, or without brackets the complete
            match, is the row's group: `sender([0-9]+)`. A row without a match has no group.
        split: the same for train, val (validation, valid) or test, in any case; without a match, the folders decide.
        max_bytes: larger files are refused.

    Raises:
        SourceError: the folder is missing or, if `labelled`, has no class folders; `group` or `split` is no regular
            expression.
    """

    root: str | Path
    labelled: bool = True
    group: str | None = None
    split: str | None = None
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        self._set(root=str(self.root), labelled=flag("labelled", self.labelled))
        if not stat.S_ISDIR(mode_of("folder", self.root)):
            raise SourceError(f"{self.root} is a file; give the folder that holds the class folders")
        check_size("max_bytes", self.max_bytes)
        for option in ("group", "split"):
            _check_pattern(option, getattr(self, option))

    def __str__(self) -> str:
        return str(self.root)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in natural order, without those that are only in `test/` if there is a `train/`."""
        if not self.labelled:
            return ()
        root, layout = Path(self.root), self._layout()
        trained = [folder for split, folder in layout if split != "test"] or [folder for _, folder in layout]
        names = {key_of(name) for folder in trained for name in _folders(root, folder)}
        if not names:
            raise SourceError(f"{self.root} has no class folders: put the images of each class into a separate folder")
        return tuple(sorted(names, key=natural_key))

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(self.root).resolve().name

    def resolved(self) -> FolderSource:
        """Return the same source with absolute paths."""
        return dataclasses.replace(self, root=Path(self.root).absolute())

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of `train`, `val` and `test` have folders; empty for plain class folders."""
        return tuple(split for split, _ in self._layout() if split is not None) if self.labelled else ()

    def __iter__(self) -> Iterator[Record]:
        keys = UniqueKeys()
        for found, label, split in self._found():
            plain = key_of(found.location)
            key, again = keys.own(plain)
            if again:
                found = dataclasses.replace(found, problem="another file has the same name in Unicode NFC")
            yield Record(
                key,
                labels=() if label is None else (label,),
                group=_matched(self.group, plain),
                split=self._split_in(plain) or split,
                location=found.location_for(key),
                problem=found.problem,
            )

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        path = Path(os.path.realpath(Path(self.root) / (record.location or record.key)))
        if not path.is_relative_to(os.path.realpath(self.root)):
            raise ImageError(record.key, "leads out of the folder")
        return read_file(path, record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """Return the file's size and times as a string, without reading it."""
        return file_version(Path(self.root) / (record.location or record.key))

    def _found(self) -> Iterator[tuple[Found, str | None, str | None]]:
        """Every row's file, with the label and the split of its folders."""
        root = Path(self.root)
        if not self.labelled:
            yield from ((found, None, None) for found in walk(root))
            return
        for split, folder in self._layout():
            for found in walk(root, folder):
                parts = PurePath(found.location).relative_to(folder).parts
                if len(parts) > 1:
                    yield found, key_of(parts[0]), split
                elif PurePath(found.location).suffix.lower() in IMAGE_SUFFIXES or found.problem:
                    yield dataclasses.replace(found, problem=found.problem or _OUTSIDE), None, split

    def _split_in(self, key: str) -> str | None:
        name = _matched(self.split, key)
        return None if name is None else split_named(name, f"{key}: split= finds")

    def _layout(self) -> tuple[tuple[str | None, str], ...]:
        """Return (split, folder below the root) for each split: for plain class folders, one without a name.

        Folders called train, val or test are splits if train and another hold class folders, or if there are no other
        folders; among others, a folder with one of these names is a class.
        """
        root = Path(self.root)
        splits = {name: SPLIT_NAMES.get(name.casefold()) for name in _folders(root)}
        named = {name: split for name, split in splits.items() if split}
        nested = {split for name, split in named.items() if _folders(root, name)}
        both = "train" in nested and len(nested) > 1
        alone = len(named) == len(splits) and (nested or ("train" in named.values() and len(named) > 1))
        if not both and not alone:
            return ((None, ""),)
        return tuple((split, name) for name, split in sorted(named.items(), key=lambda item: _ORDER.index(item[1])))


_OUTSIDE = "is outside of all class folders"
_ORDER = ("train", "val", "test")


def _folders(root: Path, below: str = "") -> list[str]:
    """The names of the folders in `root/below`, without symbolic links that must not be followed."""
    try:
        with os.scandir(root / below) as entries:
            found = [entry for entry in entries if not is_ignored(entry.name) and entry.is_dir()]
    except OSError as error:
        raise SourceError(f"{root / below} cannot be listed ({error.strerror})") from error
    return sorted(
        entry.name for entry in found if not entry.is_symlink() or link_problem(root, Path(below) / entry.name) is None
    )


def _check_pattern(option: str, pattern: str | None) -> None:
    try:
        groups = re.compile(pattern or "").groups
    except (re.error, OverflowError, RecursionError) as error:
        raise SourceError(f"{option}={pattern!r} is no regular expression ({error})") from error
    if groups > 1:
        raise SourceError(f"{option}={pattern!r} has {groups} pairs of brackets; leave one, and write (?:…) for others")


def _matched(pattern: str | None, key: str) -> str | None:
    """What a pattern's brackets match, or the complete match; None where that is nothing."""
    match = re.search(pattern, key) if pattern is not None else None
    return (match[match.re.groups] or None) if match else None
