"""Files that may hold the labels of images but are not read: annotations of objects, MATLAB and NumPy files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from visionadapt.core import spec
from visionadapt.errors import SourceError
from visionadapt.sources.tree import Place, Tree
from visionadapt.system.text import for_shell

_ANNOTATIONS = (
    (".json", re.compile(rb'"shapes"'), "labelme's JSON"),
    (".xml", re.compile(rb"<annotation"), "Pascal VOC's XML"),
    (".txt", re.compile(rb"\A\s*\d+([ \t]+-?[\d.]+){4,}\s*$", re.MULTILINE), "YOLO's text"),
)
"""Suffix, a sign of the format near the beginning, and what it is called."""
_DATA = {
    ".mat": "a MATLAB file (Python: scipy.io.loadmat)",
    ".npy": "a NumPy file",
    ".npz": "a NumPy file",
    ".h5": "an HDF5 file",
    ".pkl": "a file of Python objects",
}
_LABELS = re.compile("label|class|annot|target|list|meta|truth", re.IGNORECASE)
_HEAD = 4096
_MOST_FOLDERS = 20


def other_labels(tree: Tree, folders: Sequence[str]) -> str | None:
    """Return what may hold the labels of the images in some folders below a root, and what to do; None without such."""
    root = tree.root
    if isinstance(root, Place):
        return None
    for folder in folders:
        for image in tree.images(folder)[:1]:
            found = next(_annotations(root / folder, Path(image).stem), None)
            if found is not None:
                path, kind = found
                return f"{path} describes objects in an image ({kind}), not its class: {_remedy(tree, folder)}"
    inside = (root, *(root / folder for folder in folders))
    found_data = [path for folder in inside for path in _data(folder)]
    found_data += [path for path in _data(root.absolute().parent) if _LABELS.search(path.name)]
    for path in found_data[:1]:
        kind = _DATA[path.suffix.lower()]
        return f"{path} may hold the labels, but is {kind}, which is not read: {_remedy(tree, folders[0])}"
    return None


def _remedy(tree: Tree, folder: str) -> str:
    given = {"path": "labels.csv", "image": "image", "label": "label", "root": str(tree.root / folder)}
    text = spec.written("csv", given).replace("path=", "", 1)
    return f"write a table with the columns image and label, one row per image, and give --data {for_shell(text)}"


def _annotations(place: Path, stem: str) -> Iterator[tuple[Path, str]]:
    """The annotation of an image, beside it or in a folder below or beside its own, and the name of its format."""
    for folder in (place, *_folders(place), *_folders(place.parent)):
        for suffix, sign, kind in _ANNOTATIONS:
            path = folder / f"{stem}{suffix}"
            if path.is_file() and sign.search(_head(path)):
                yield path, kind


def _folders(place: Path) -> list[Path]:
    try:
        return [place / name for name in Tree(place).folders()[:_MOST_FOLDERS]]
    except SourceError:
        return []


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _data(folder: Path) -> Iterator[Path]:
    """Files of data in a folder, first those whose names tell of labels."""
    try:
        paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _DATA and path.is_file()]
    except OSError:
        return
    yield from sorted(paths, key=lambda path: _LABELS.search(path.name) is None)
