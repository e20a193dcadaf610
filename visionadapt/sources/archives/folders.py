"""What the folders in an archive say of its images: their split, and their class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import dropwhile, takewhile

from visionadapt.sources.archives.members import name_problem
from visionadapt.sources.split_names import split_called, split_of_folder


@dataclass(frozen=True)
class Folders:
    """What the folders of one archive mean.

    Attributes:
        shared: how many leading folders all images are in, down to one that is called as a split.
        splits: the split that each folder below them is called.
        named: the split that the archive is called; what its folders say comes first if that is several splits.
        by_class: whether each class has a folder for each split, such as `cat/train`.
        unclear: a folder that is called as a split, but lies where no split is looked for; None if there is none.
        inner: a class folder in another one, and that one; None if there is none.
    """

    shared: int
    splits: Mapping[str, str]
    named: str | None
    by_class: bool
    unclear: str | None
    inner: tuple[str, str] | None

    def of(self, name: str) -> tuple[str | None, str | None]:
        """Return the split of the member with this name, and its class; None each where nothing says it."""
        folders = _folders(name.rpartition("/")[0]) if name_problem(name) is None else ()
        below = folders[self.shared :]
        if self.by_class and len(below) > 1:
            return split_called(below[-1]), below[-2]
        inside = self.splits.get(below[0]) if below else None
        several = len(set(self.splits.values())) > 1
        split = (inside or self.named) if several else (self.named or inside)
        return split, None if inside and len(below) == 1 else folders[-1] if folders else None


def read_folders(names: Iterable[str], titles: Iterable[str]) -> Folders:
    """Look at the names of an archive's images.

    Args:
        names: the members' names, with folders.
        titles: the archive's own name without suffix, and those of the folders that it is in, the nearest first.
    """
    above = {name.replace("\\", "/").rpartition("/")[0] for name in names if name_problem(name) is None}
    paths = {_folders(folder) for folder in above}
    alike = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    shared = len(list(takewhile(lambda folder: split_called(folder) is None, (level[0] for level in alike))))
    below = {path[shared:] for path in paths} - {()}
    splits = _splits({path[0] for path in below})
    named = next((split for title in titles if (split := split_called(title)) is not None), None)
    by_class = bool(below) and not splits and all(len(path) > 1 and _is_by_class(path) for path in below)
    unclear = None if splits or named or by_class else _unclear(below)
    return Folders(shared, splits, named, by_class, unclear, None if by_class else _inner(below, splits))


def _folders(folder: str) -> tuple[str, ...]:
    return tuple(part for part in folder.replace("\\", "/").split("/") if part not in {"", "."})


def _splits(names: Iterable[str]) -> dict[str, str]:
    """The splits of folders that are called so; of all, if each says one among other things, and they are several."""
    names = list(names)
    called = {name: split for name in names if (split := split_called(name)) is not None}
    told = {name: split for name in names if (split := split_of_folder(name)[0]) is not None}
    return told if not called and len(told) == len(names) and len(set(told.values())) > 1 else called


def _behind_splits(path: tuple[str, ...]) -> tuple[str, ...]:
    """A path without its first folder, and those after it that say a split too, as in `seg_train/seg_train/cat`."""
    return tuple(dropwhile(lambda folder: split_of_folder(folder)[0] is not None, path[1:]))


def _is_by_class(path: tuple[str, ...]) -> bool:
    return split_called(path[-1]) is not None and split_called(path[-2]) is None


def _unclear(paths: Iterable[tuple[str, ...]]) -> str | None:
    """A folder that is called as a split, if there are such of several splits."""
    found = {split: "/".join(path) for path in sorted(paths) for part in path if (split := split_called(part))}
    return min(found.values()) if len(found) > 1 else None


def _inner(paths: set[tuple[str, ...]], splits: Mapping[str, str]) -> tuple[str, str] | None:
    """A folder with images in another one, or below several others with another name, and the folder above it."""
    inside = {_behind_splits(path) if path[0] in splits else path for path in paths} - {()}
    parents: dict[str, set[str]] = {}
    for path in inside:
        if len(path) > 1:
            parents.setdefault(path[-1], set()).add(path[-2])
    found = [path for path in sorted(inside) if len(path) > 1 and (path[:-1] in inside or len(parents[path[-1]]) > 1)]
    return ("/".join(found[0]), found[0][-2]) if found else None
