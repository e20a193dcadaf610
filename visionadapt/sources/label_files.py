"""Files that may hold the labels of images but are not read: annotations of objects, MATLAB and NumPy files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from visionadapt.core import spec
from visionadapt.errors import SourceError
from visionadapt.sources.table_examples import pixel_tables
from visionadapt.sources.tables.contents import PIXELS, WRITE_OUT, arrays_in
from visionadapt.sources.tree import Place, Tree
from visionadapt.sources.walk import is_image, is_sidecar
from visionadapt.system.text import for_shell

_ANNOTATIONS = (
    (".json", re.compile(rb'"shapes"'), "labelme's JSON"),
    (".xml", re.compile(rb"<annotation"), "Pascal VOC's XML"),
    (".txt", re.compile(rb"\A\s*\d+([ \t]+-?[\d.]+){4,}\s*$", re.MULTILINE), "YOLO's text"),
)
"""Suffix, a sign of the format near the beginning, and what it is called."""
_COCO = re.compile(rb'"(?:images|annotations|categories)"\s*:\s*\[')
_LABELS = re.compile("label|class|annot|target|list|meta|truth", re.IGNORECASE)
_HEAD = 4096
_MOST_FOLDERS = 20
_MOST_FILES = 20


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
    for path in _coco(inside):
        return f"{path} is COCO's JSON, which is not read: {_remedy(tree, folders[0])}"
    found_data = [path for folder in inside for path in _data(folder)]
    found_data += [path for path in _data(root.absolute().parent) if _LABELS.search(path.name)]
    for path in found_data[:1]:
        return f"{path} may hold the labels, but is {arrays_in(path)}, and is not read: {_remedy(tree, folders[0])}"
    return None


def arrays_alone(tree: Tree) -> str | None:
    """Return what to do with a folder whose images are in files of arrays or tables; None where there are none."""
    if isinstance(tree.root, Place):
        return None
    for path in _data(tree.root):
        return f"{path} is {arrays_in(path)}, and is not read: {WRITE_OUT}"
    for path in pixel_tables(tree.root):
        return f"{path} {PIXELS}: {WRITE_OUT}"
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


def _coco(places: Sequence[Path]) -> Iterator[Path]:
    """COCO's files, which describe all images together, in some folders or in folders in or beside them."""
    around = (folder for place in places for folder in (place, *_folders(place), *_folders(place.parent)))
    for folder in dict.fromkeys(around):
        with suppress(OSError):
            paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json")
            yield from (path for path in paths[:_MOST_FILES] if path.is_file() and _COCO.search(_head(path)))


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
        others = [path for path in sorted(folder.iterdir()) if not (is_image(path.name) or is_sidecar(path.name))]
        paths = [path for path in others if path.is_file() and arrays_in(path) is not None]
    except (OSError, SourceError):
        return
    yield from sorted(paths, key=lambda path: _LABELS.search(path.name) is None)
