"""`FolderSource`: a folder of class folders on disk."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from visionadapt.core.records import Record
from visionadapt.core.spec import suggestion
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import flag, mode_of, several
from visionadapt.sources.class_folders import ClassFolders
from visionadapt.sources.hub import data_set_name, hub_files, is_hub_address, shown
from visionadapt.sources.layout import ORDER
from visionadapt.sources.tree import Tree
from visionadapt.system.hub import is_blob
from visionadapt.system.storage import file_version, read_file


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
            root. Without them, the names of the folders decide.
        drop: class folders whose images are not used; each is a row with a problem.
        follow_links: follow symbolic links that leave the root, too.
        max_bytes: larger files are refused.

    Raises:
        SourceError: the folder is missing or, if `labelled`, has no class folders, or it is unclear which they are; a
            class folder is a link that leaves the root; `group`, `split` or `label` is no regular expression; there is
            no folder that `train`, `val` or `test` names.
    """

    root: str | Path
    labelled: bool = True
    group: str | None = None
    split: str | None = None
    max_bytes: int = 1 << 28
    label: str | None = None
    train: str | Sequence[str] = ()
    val: str | Sequence[str] = ()
    test: str | Sequence[str] = ()
    drop: str | Sequence[str] = ()
    follow_links: bool = False

    def __post_init__(self) -> None:
        self._set(root=_local(str(self.root)), follow_links=flag("follow_links", self.follow_links))
        if not stat.S_ISDIR(mode_of("folder", self.root)):
            raise SourceError(f"{self.root} is a file; give the folder that holds the class folders")
        self._normalize_folders()
        for option in ORDER:
            self._set(**{option: tuple(self._below(option, folder) for folder in several(getattr(self, option)))})

    def __str__(self) -> str:
        return shown(self.root)

    @property
    def name(self) -> str:
        """The folder's name, or that of the data set on the hub."""
        return data_set_name(self.root) or Path(self.root).resolve().name

    def resolved(self) -> FolderSource:
        """Return the same source with absolute paths."""
        return dataclasses.replace(self, root=Path(self.root).absolute())

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

    def _below(self, option: str, folder: str) -> str:
        """Return a folder that an argument names, as a path below the root; raise SourceError where there is none."""
        path = PurePath(folder)
        if path.is_absolute() and path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        if path.is_absolute() or ".." in path.parts or not (Path(self.root) / path).is_dir():
            near = suggestion(folder, self._tree.folders())
            raise SourceError(f"{option}={folder} is no folder below {self.root}{near}")
        return "" if path == PurePath() else path.as_posix()

    @property
    def _tree(self) -> Tree:
        return Tree(Path(self.root), self.follow_links, frozenset(self.drop))


def _local(root: str) -> str:
    """Return the folder on disk, after a download where it is on the hub."""
    if not is_hub_address(root):
        return root
    found = hub_files(root)
    if found.is_file:
        raise SourceError(f"{root} is a file; give the folder that holds the class folders")
    return found.fetched()
