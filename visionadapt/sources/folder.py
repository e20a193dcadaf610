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
from visionadapt.sources.arguments import check_size, flag
from visionadapt.sources.split_names import SPLIT_FOLDERS
from visionadapt.sources.walk import IMAGE_SUFFIXES, Found, Keys, is_ignored, key_of, link_problem, walk
from visionadapt.system.storage import file_version, read_file


@dataclass(frozen=True)
class FolderSource:
    """Images in `root/<class>/*` or `root/{train,val|validation|valid,test}/<class>/*`, nested as deep as one likes.

    The class is the folder's name in Unicode NFC; classes stand in natural order (`2` before `10`). Hidden files and
    what operating systems leave behind are no rows; everything else in a class folder is one, and so is a picture
    that lies outside of every class folder (it is yielded with a problem).

    Args:
        root: the folder.
        labelled: False takes every file below the root as an unlabelled picture.
        group: a regular expression that is looked for in each key; what its brackets hold, or without brackets what it
            matches, is the row's group: `sender([0-9]+)`. A row where it is not found has no group.
        split: the same for train, val (validation, valid) or test, in any case; where it is not found, the folders
            tell.
        max_bytes: a larger file is refused.

    Raises:
        SourceError: the folder is missing or, where `labelled`, has no class folders; `group` or `split` is no regular
            expression.
    """

    root: str | Path
    labelled: bool = True
    group: str | None = None
    split: str | None = None
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        root = Path(self.root)
        try:
            mode = root.stat().st_mode
        except FileNotFoundError as error:
            raise SourceError(f"no such folder: {root}") from error
        except (OSError, ValueError) as error:
            raise SourceError(f"the folder {root} cannot be read ({getattr(error, 'strerror', error)})") from error
        if not stat.S_ISDIR(mode):
            raise SourceError(f"{root} is a file; give the folder that holds the class folders")
        object.__setattr__(self, "root", str(root))
        object.__setattr__(self, "labelled", flag("labelled", self.labelled))
        check_size("max_bytes", self.max_bytes)
        for option in ("group", "split"):
            _check_pattern(option, getattr(self, option))

    def __str__(self) -> str:
        return str(self.root)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in natural order; a class that stands only in `test/` does not count where there is a train/."""
        if not self.labelled:
            return ()
        root, layout = Path(self.root), self._layout()
        parts = [folder for split, folder in layout if split != "test"] or [folder for _, folder in layout]
        names = {key_of(name) for folder in parts for name in _folders(root, folder)}
        if not names:
            raise SourceError(
                f"{self.root} has no class folders: put the pictures of each class into a folder of its own"
            )
        return tuple(sorted(names, key=natural_key))

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(self.root).resolve().name

    def resolved(self) -> FolderSource:
        """The same source, found from any working folder."""
        return dataclasses.replace(self, root=Path(self.root).absolute())

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of `train`, `val` and `test` the folders themselves tell apart; empty for plain class folders."""
        return tuple(split for split, _ in self._layout() if split is not None) if self.labelled else ()

    def __iter__(self) -> Iterator[Record]:
        keys = Keys()
        for record in self._records():
            key, again = keys.own(record.key)
            problem = "another file has the same name in Unicode NFC" if again else record.problem
            yield record if key == record.key else dataclasses.replace(record, key=key, problem=problem)

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        path = Path(os.path.realpath(Path(self.root) / (record.location or record.key)))
        if not path.is_relative_to(os.path.realpath(self.root)):
            raise ImageError(record.key, "leads out of the folder")
        return read_file(path, record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """What the file system says of the file, without reading it."""
        return file_version(Path(self.root) / (record.location or record.key))

    def _records(self) -> Iterator[Record]:
        root = Path(self.root)
        if not self.labelled:
            yield from (self._record(found, None, None) for found in walk(root))
            return
        for split, folder in self._layout():
            for found in walk(root, folder):
                parts = PurePath(found.location).relative_to(folder).parts
                if len(parts) > 1:
                    yield self._record(found, key_of(parts[0]), split)
                elif PurePath(found.location).suffix.lower() in IMAGE_SUFFIXES or found.problem:
                    yield self._record(dataclasses.replace(found, problem=found.problem or _OUTSIDE), None, split)

    def _record(self, found: Found, label: str | None, split: str | None) -> Record:
        key = key_of(found.location)
        labels = (label,) if label is not None else ()
        part = _found(self.split, key)
        if part is not None and part.casefold() not in SPLIT_FOLDERS:
            raise SourceError(f"{key}: split= finds {part!r}; it must be train, val (or validation, valid) or test")
        split = split if part is None else SPLIT_FOLDERS[part.casefold()]
        return Record(key, labels, _found(self.group, key), split, location=found.location, problem=found.problem)

    def _layout(self) -> tuple[tuple[str | None, str], ...]:
        """Return (split, folder below the root) for each part: one part without a name for plain class folders.

        Folders called train, val or test are parts where train and another hold class folders, or where there are no
        other folders than those; among others, one of these names is a class.
        """
        root = Path(self.root)
        parts = {name: SPLIT_FOLDERS.get(name.casefold()) for name in _folders(root)}
        named = {name: split for name, split in parts.items() if split}
        nested = {split for name, split in named.items() if _folders(root, name)}
        both = "train" in nested and len(nested) > 1
        alone = len(named) == len(parts) and (nested or ("train" in named.values() and len(named) > 1))
        if not both and not alone:
            return ((None, ""),)
        return tuple((split, name) for name, split in sorted(named.items(), key=lambda item: _ORDER.index(item[1])))


_OUTSIDE = "lies outside of every class folder"
_ORDER = ("train", "val", "test")


def _folders(root: Path, below: str = "") -> list[str]:
    """Names of the folders in `root/below`, without symbolic links that must not be followed."""
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


def _found(pattern: str | None, key: str) -> str | None:
    """What a pattern's brackets hold, or what it matches; None where that is nothing."""
    match = re.search(pattern, key) if pattern is not None else None
    return (match[match.re.groups] or None) if match else None
