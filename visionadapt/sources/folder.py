"""`FolderSource`: a folder of class folders on disk."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from visionadapt.core.records import Record
from visionadapt.core.spec import suggestion
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import flag, mode_of, several
from visionadapt.sources.class_folders import ClassFolders
from visionadapt.sources.hub import data_set_name, hub_files, is_hub_address, local_path, shown
from visionadapt.sources.layout import ORDER
from visionadapt.sources.lists_beside import lists_beside, lists_note
from visionadapt.sources.split_lists import SplitList
from visionadapt.sources.tables.near_misses import near_miss
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.sources.tree import Tree
from visionadapt.system.hub import is_blob
from visionadapt.system.storage import MISSING, file_version, read_file


@dataclass(frozen=True, repr=False)
class FolderSource(ClassFolders):
    """Images in `root/<class>/*`, in `root/<split>/<class>/*` or in `root/<class>/<split>/*`, nested to any depth.

    A split is a folder called train, val or test, or by another name that says so: `Training`, `dev`, `test_set`,
    `01_train_images`; `layout.find_parts` describes when. The class is the folder's name in Unicode NFC; classes are in
    natural order (`2` before `10`). Hidden files, the leftovers of operating systems, and files whose suffix says that
    they tell about images (`.txt`, `.json`, `.xml`, `.csv`, …) are skipped, and `notes` counts the latter; every other
    file in a class folder is a row, and so is an image outside of all class folders (it is yielded with a problem), and
    a folder with images beside the splits.

    Args:
        root: the folder; or `hf://datasets/ORG/NAME`, which is downloaded into the hub's cache, and is then a folder
            there.
        labelled: False takes every file below the root as an unlabelled image.
        group: a regular expression to search in each key; what its brackets match, or without brackets the complete
            match, is the row's group: `sender([0-9]+)`. A row without a match has no group.
        split: the same for train, val or test, in any case; without a match, the folders decide.
        label: the same for the class, where no folders are classes: `([a-z]+)_[0-9]+`. A row without a match has a
            problem.
        train, val, test: folders below the root, one or several, that hold the class folders of each split; `.` is the
            root. Without them, the names of the folders decide. Or text files, one or several, that list the images of
            each split: paths from the current folder, or else below the root. Each line is the path of an image below
            the root, with or without its suffix; a CSV or TSV file, and a text with a label on each line, has a column
            of such paths. An image in no list has the split of its folder or is train, but is a row with a problem
            where `train` names a list; so is an image in lists of two splits, and a listed path without an image.
        drop: class folders whose images are not used; each is a row with a problem.
        follow_links: follow symbolic links that leave the root, too.
        max_bytes: larger files are refused.

    Raises:
        SourceError: the folder is missing or, if `labelled`, has no class folders, or it is unclear which they are; a
            class folder is a link that leaves the root; `group`, `split` or `label` is no regular expression; there is
            no folder and no list that `train`, `val` or `test` names; `split` is given together with a list; a list
            cannot be read, or names none of the images.
    """

    root: str | Path
    labelled: bool = True
    group: str | None = None
    split: str | None = None
    max_bytes: int = 1 << 28
    label: str | None = None
    train: str | Path | Sequence[str | Path] = ()
    val: str | Path | Sequence[str | Path] = ()
    test: str | Path | Sequence[str | Path] = ()
    drop: str | Sequence[str] = ()
    follow_links: bool = False

    def __post_init__(self) -> None:
        self._set(root=_local(str(self.root)), follow_links=flag("follow_links", self.follow_links))
        if not stat.S_ISDIR(mode_of("folder", self.root)):
            raise SourceError(f"{self.root} is a file; give the folder that holds the class folders")
        self._normalize_folders()
        lists: list[SplitList] = []
        for option in ORDER:
            self._set(**{option: tuple(self._place(option, name, lists) for name in several(getattr(self, option)))})
        self._set(_lists=tuple(lists))
        self._check_splits()
        if lists and self.split is not None:
            raise SourceError(f"split= and {lists[0].split}={lists[0].path} both say the splits; leave one out")

    def __str__(self) -> str:
        return shown(self.root)

    @property
    def name(self) -> str:
        """The folder's name, or that of the data set on the hub."""
        return data_set_name(self.root) or Path(self.root).resolve().name

    def resolved(self) -> FolderSource:
        """Return the same source with absolute paths."""
        lists = {str(each.path): str(each.path.absolute()) for each in self._lists}
        given: dict[str, Any] = {split: [lists.get(name, name) for name in getattr(self, split)] for split in ORDER}
        return dataclasses.replace(self, root=Path(self.root).absolute(), **given)

    def notes(self) -> tuple[str, ...]:
        """What was understood or left out without being a row's problem, such as lists of splits, each as a line."""
        told = super().notes()
        if not self.labelled or self.split is not None or self._lists or self._given or self.splits:
            return told
        lists = lists_beside(Path(self.root))
        if not lists:
            return told
        values = {item.name: (getattr(self, item.name), item.default) for item in dataclasses.fields(self)[1:]}
        options = {name: value for name, (value, default) in values.items() if value != default}
        return (*told, lists_note(lists, Path(self.root), options))

    def advice(self, record: Record) -> str | None:
        """Return what to do about a row that cannot be used, such as the file that a list means; None if unknown."""
        if self._lists and (record.problem or "").startswith(MISSING):
            near = near_miss(FilesBelow(self.root, self.max_bytes), record.key)
            return None if near is None else near.found
        return super().advice(record)

    def read(self, record: Record) -> bytes:
        """Return the file's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        location = Path(record.location or record.key)
        path, root = Path(os.path.realpath(self.root / location)), Path(os.path.realpath(self.root))
        inside = not location.is_absolute() and ".." not in location.parts if self.follow_links else False
        if not inside and not path.is_relative_to(root) and not is_blob(str(root), str(path)):
            raise ImageError(record.key, "leads out of the folder")
        return read_file(path, record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """Return the file's size and times as a string, without reading it."""
        return file_version(Path(self.root) / (record.location or record.key))

    def _place(self, split: str, name: str, lists: list[SplitList]) -> str:
        """Return a folder that an argument names as a path below the root, or a list, which is added to `lists`.

        Raises:
            SourceError: there is neither.
        """
        path = PurePath(name)
        if path.is_absolute() and path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        inside = not path.is_absolute() and ".." not in path.parts
        if inside and os.path.isdir(f"{self.root}/{path}"):  # noqa: PTH112 - a Path refuses some texts
            return "" if path == PurePath() else path.as_posix()
        files = [Path(_local_list(name)), *([Path(self.root) / path] if inside else [])]
        found = next((file for file in files if os.path.lexists(file) and not file.is_dir()), None)
        if found is None:
            near = suggestion(name, self._tree.folders())
            raise SourceError(f"{split}={name} is no folder below {self.root}, and no file that lists images{near}")
        if not stat.S_ISREG(mode_of("list", found)):
            raise SourceError(f"{split}={found} is no regular file; give a text file with one path per line")
        lists.append(SplitList(split, found))
        return str(found)

    @property
    def _tree(self) -> Tree:
        lists = tuple((each.split, str(each.path)) for each in self._lists)
        return Tree(Path(self.root), self.follow_links, frozenset(self.drop), lists)


def _local_list(name: str) -> str:
    """Return a list on disk, after a download where it is on the hub."""
    if is_hub_address(name):
        return local_path(name)
    return os.path.expanduser(name) if name.startswith("~/") else name  # noqa: PTH111 - as it is written


def _local(root: str) -> str:
    """Return the folder on disk, after a download where it is on the hub."""
    if not is_hub_address(root):
        return root
    found = hub_files(root)
    if found.is_file:
        raise SourceError(f"{root} is a file; give the folder that holds the class folders")
    return found.fetched()
