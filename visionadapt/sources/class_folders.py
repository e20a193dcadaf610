"""`ClassFolders`: class folders, also below or above train/val/test folders, or classes in the names of files."""

from __future__ import annotations

import dataclasses
import os
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePath

from visionadapt.core.naming import listed, natural_key, near_duplicate_classes
from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import check_size, flag, several
from visionadapt.sources.base import BaseSource
from visionadapt.sources.keys import UniqueKeys, key_of
from visionadapt.sources.layout import ORDER, Part, find_parts, find_splits, inner_folder, told_layout
from visionadapt.sources.no_classes import is_table_beside, table_beside, why_no_classes
from visionadapt.sources.not_classes import inner_folders, is_mask, masks_told
from visionadapt.sources.split_lists import UNLISTED, SplitList, SplitLists
from visionadapt.sources.split_names import is_wrapper, split_called, split_named
from visionadapt.sources.tree import Tree, joined, spelled
from visionadapt.sources.walk import Found, is_image, is_sidecar, suffix_of
from visionadapt.system.text import counted, for_shell


class ClassFolders(BaseSource):
    """Base of sources whose folders say the class: finds splits and classes, and gives each file a row.

    Subclasses are frozen dataclasses that declare the fields below, as `FolderSource` describes them, and know where
    the files are: `_tree`, `read` and `version_of`.
    """

    root: str | Path
    labelled: bool
    group: str | None
    split: str | None
    label: str | None
    train: str | Path | Sequence[str | Path]
    val: str | Path | Sequence[str | Path]
    test: str | Path | Sequence[str | Path]
    drop: str | Sequence[str]
    max_bytes: int

    _lists: Sequence[SplitList] = ()
    """The lists of images among what `train`, `val` and `test` name; the others are folders."""

    @property
    @abstractmethod
    def _tree(self) -> Tree:
        """The folders below the root."""

    def _normalize_folders(self) -> None:
        """Normalise the shared arguments, except the folders of splits; raise SourceError where one is invalid."""
        self._set(drop=several(self.drop), labelled=flag("labelled", self.labelled))
        check_size("max_bytes", self.max_bytes)
        for option in ("group", "split", "label"):
            _check_pattern(option, getattr(self, option))
        for option in ORDER:
            self._set(**{option: several(getattr(self, option))})

    def _check_splits(self) -> None:
        """Raise SourceError where the normalised arguments do not say what the images are that train."""
        given = {split for split, _ in self._given}
        if given and "train" not in given:
            raise SourceError(
                f"{self.root}: val= and test= need train=, a folder, or . for the class folders in {self.root} itself"
            )

    def __str__(self) -> str:
        return str(self.root)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in natural order, without those that are only in `test/` if there is a `train/`.

        Raises:
            SourceError: there are none, or a class is written differently in two splits.
        """
        if not self.labelled:
            return ()
        if self.label is not None:
            names = {name for record in self for name in record.labels}
        else:
            trained = [part for part in self._parts if part.split != "test"] or self._parts
            names = {name for part in trained for name in self._class_folders(part)}
            self._check_spelling([part for part in trained if part.label is None])
        if self.label is None and not self._given and self._tree.images() and not self._tree.classes(""):
            names = set()
        wrapper = next(iter(names)) if len(names) == 1 else ""
        parts = (Part(None, wrapper),) if wrapper and not self._given else self._parts
        lone = wrapper in self._tree.folders() and not self._given and self.label is None
        if not names or (lone and self._tree.images(wrapper) and (is_wrapper(wrapper) or is_table_beside(self._tree))):
            raise SourceError(why_no_classes(self._tree, parts, self.label))
        if self._lists or self.label is not None:
            names -= self._not_trained
        return tuple(sorted(names, key=natural_key))

    @cached_property
    def _not_trained(self) -> set[str]:
        """The classes of which all images are for testing or in no list; none where that is so of all classes."""
        rows = [(name, record.split) for record in self for name in record.labels]
        used = {name for name, split in rows if split != "test"}
        return {*self.__dict__["_unlisted"], *(name for name, _ in rows)} - used if used else set()

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of `train`, `val` and `test` have folders or lists; empty for plain class folders."""
        if not self.labelled:
            return ()
        found = {part.split for part in self._parts} | {each.split for each in self._lists}
        rest = "train" if self._lists and None in found else None  # what is in no list
        return tuple(split for split in ORDER if split in found or split == rest)

    def notes(self) -> tuple[str, ...]:
        """What was understood or left out without being a row's problem, each as a line."""
        if "_ignored" not in self.__dict__:
            for _ in self:
                pass
        ignored: Counter[str] = self.__dict__["_ignored"]
        lines = [line] if self.labelled and (line := told_layout(self._tree, self._parts)) else []
        if self.labelled and self.label is None and (inner := inner_folders(self._tree, self._parts)):
            lines.append(inner)
        if self.labelled and (masks := masks_told(self._tree, self.__dict__["_masks"])):
            lines.append(masks)
        if self._lists and self.labelled and self._not_trained:
            left = listed(sorted(self._not_trained, key=natural_key))
            lines.append(f"the lists name no image to train on of {left}: not among the classes")
        if ignored:
            kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in ignored.most_common())
            lines.append(
                f"ignored {counted(ignored.total(), 'file that is no image', 'files that are no images')}: {kinds}"
            )
        return tuple(lines)

    def advice(self, record: Record) -> str | None:
        """Return what to do about a row that cannot be used; None where its problem says it."""
        part = next((part for part in self._parts if part.split == record.split), None)
        if record.problem != _OUTSIDE or part is None or not part.folder or self._class_folders(part):
            return None
        others = {split: [each.folder for each in self._parts if each.split == split] for split in self.splits}
        without = {split: folders for split, folders in others.items() if split != part.split}
        return (
            f"put the images in {self._tree.root / part.folder} into a folder for each class, or leave them out by "
            f"{spelled(self._tree.root, without)}"
        )

    def __iter__(self) -> Iterator[Record]:
        keys, ignored, masks, left = UniqueKeys(), Counter[str](), list[str](), set[str]()
        lists = SplitLists(self.root, self._lists, self.max_bytes) if self._lists and self.labelled else None
        for found, label, split in self._found(ignored):
            if label is not None and is_mask(found.location):
                masks.append(found.location)
            plain = key_of(found.location)
            key, again = keys.own(plain)
            problem = "another file has the same name in Unicode NFC" if again else found.problem
            if self.label is not None and self.labelled:
                label = _matched(self.label, plain)
                problem = problem or (f"label={self.label!r} finds no class in its path" if label is None else None)
            if lists is not None:
                split, unlisted = lists.split_of(plain, split)
                problem = problem or unlisted
                if label is not None and (unlisted or "").startswith(UNLISTED):  # which makes no class of its folder
                    left, label = left | {label}, None
            if label in self.drop:
                problem, label = f"dropped: its label is {label!r}", None
            yield Record(
                key,
                labels=() if label is None else (label,),
                group=_matched(self.group, plain),
                split=self._split_in(plain) or split,
                location=found.location_for(key),
                problem=problem,
            )
        for name, split, problem in lists.without_image() if lists is not None else ():
            yield Record(keys.own(name)[0], split=split, problem=problem)
        self._set(_ignored=ignored, _masks=masks, _unlisted=left)

    def _found(self, ignored: Counter[str]) -> Iterator[tuple[Found, str | None, str | None]]:
        """Every row's file, with the label and the split of its folders; other files are counted by their suffix."""
        if not self.labelled:
            yield from ((found, None, None) for found in self._tree.walk())
            return
        folders = {part.folder for part in self._parts}
        for part in self._parts:
            for found in self._tree.walk(part.folder, folders - {part.folder}):
                name, below, _ = found.location[len(part.folder) :].lstrip("/").partition("/")
                inside = self.label is not None or part.label is not None or bool(below)
                if inside and found.problem is None and is_sidecar(found.location):
                    ignored[suffix_of(found.location)] += 1
                elif inside:
                    yield found, key_of(part.label or name) if self.label is None else None, part.split
                elif is_image(found.location) or found.problem:
                    yield dataclasses.replace(found, problem=found.problem or _OUTSIDE), None, part.split
        if "" not in folders:
            yield from ((found, None, None) for found in self._beside(folders))

    def _beside(self, parts: Collection[str]) -> Iterator[Found]:
        """What is beside the splits and may hold images: a folder as one row, and images."""
        for name in self._tree.folders():
            if not any(PurePath(each).is_relative_to(name) for each in parts) and self._tree.has_files(name):
                yield Found(name, "a folder beside those of the splits, which is not used")
        yield from (Found(name, _OUTSIDE) for name in self._tree.images())

    def _split_in(self, key: str) -> str | None:
        name = _matched(self.split, key)
        if name is None:
            return None
        return split_called(name) or split_named(name, f"{key}: split= finds")

    @property
    def _given(self) -> list[tuple[str, str]]:
        """The folders that `train`, `val` and `test` name, each with its split."""
        lists = {str(each.path) for each in self._lists}
        return [(split, name) for split in ORDER for name in getattr(self, split) if name not in lists]

    @cached_property
    def _parts(self) -> tuple[Part, ...]:
        """The splits, or the root alone, as arguments name them or as the names of the folders tell."""
        tree = self._tree
        tree.check_links()
        if self._given:
            parts = tuple(Part(split, inner_folder(tree, folder) if folder else "") for split, folder in self._given)
        else:
            parts = self._parts_found()
        for part in parts:
            tree.check_links(part.folder)
        return parts

    def _parts_found(self) -> tuple[Part, ...]:
        if self.label is not None:
            return find_splits(self._tree)
        try:
            return find_parts(self._tree)
        except SourceError as error:
            table = table_beside(self._tree)
            if table is None:
                raise
            raise SourceError(f"{error}; there is a table, too: give --data {for_shell(table)}") from error

    def _class_folders(self, part: Part) -> tuple[str, ...]:
        """The classes of a part."""
        if part.label is not None:
            return (key_of(part.label),)
        others = {each.folder for each in self._parts} - {part.folder}
        places = {name: joined(part.folder, name) for name in self._tree.folders(part.folder)}
        return tuple(key_of(name) for name, at in places.items() if at not in others and not self._has_only_lists(at))

    def _has_only_lists(self, folder: str) -> bool:
        """Whether a folder holds lists of images that are used, and no image."""
        place = os.path.abspath(os.path.join(self.root, folder))  # noqa: PTH100, PTH118 - links stay as they are
        inside = (Path(os.path.abspath(each.path)).is_relative_to(place) for each in self._lists)  # noqa: PTH100
        return any(inside) and not self._tree.has_files(folder)

    def _check_spelling(self, parts: Sequence[Part]) -> None:
        """Raise SourceError if the names of a class differ from split to split, such as `Cat` and `cat`."""
        folders: dict[str, set[str]] = {}
        for part in parts:
            for name in self._class_folders(part):
                folders.setdefault(name, set()).add(part.folder)
        for first, *others in near_duplicate_classes(folders):
            for other in others:
                if not folders[first] & folders[other]:
                    where = [joined(min(folders[name]), name) for name in (first, other)]
                    raise SourceError(
                        f"{self.root}: there is {where[0]} and {where[1]}, which are surely one class: give both "
                        "folders one name"
                    )


_OUTSIDE = "is outside of all class folders"


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
