"""Why a folder has no classes, and what to give instead: another folder, a pattern, or the table beside the images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from visionadapt.core import spec
from visionadapt.errors import VisionAdaptError
from visionadapt.sources.layout import Part, spelled
from visionadapt.sources.table import TableSource
from visionadapt.sources.tables.readers import SUFFIXES
from visionadapt.sources.tree import Tree
from visionadapt.sources.walk import is_image

_IMAGES = ("image", "file", "path", "file_name", "filename", "image_path", "image_name", "filepath", "image_id", "id")
_LABELS = ("label", "class", "category", "target", "label_name", "class_name", "species", "breed", "diagnosis")

_PATTERNS = ("([a-z]+)_[0-9]+", "([^/]+?)[ ._-]*[0-9]+[.]", "[0-9]+[ ._-]+([A-Za-z]+)")


def why_no_classes(tree: Tree, parts: Sequence[Part], label: str | None) -> str:
    """Return one line for a folder without a class: what is there, and what to give as `--data`."""
    root = tree.root
    if label is not None:
        return f"{root}: label={label!r} finds no class in any path; it is searched in paths such as {_example(tree)}"
    below = " or ".join(str(root / part.folder) for part in parts if part.folder)
    start = f"{root} has no class folders{f' in {below}' if below else ''}"
    table = next(_tables(tree, parts), None)
    if table is not None:
        return f'{start}; there is a table, though: give --data "{table}"'
    flat = any(tree.images_in(part.folder) for part in parts)
    if not flat:
        return f"{start}: put the images of each class into a separate folder"
    by_name = spelled(root, {"label": _pattern(tree, parts)})
    return (
        f"{start}: put the images of each class into a separate folder, name the class in the files' names by a "
        f"regular expression, such as {by_name}{_above(tree)}"
    )


def _pattern(tree: Tree, parts: Sequence[Part]) -> str:
    """A regular expression that finds classes in the names of the images, such as what is before a number."""
    names = [name for part in parts for name in os.listdir(tree.root / part.folder) if is_image(name)]  # noqa: PTH208
    for pattern in _PATTERNS:
        found = [match[1] if (match := re.search(pattern, name)) else None for name in names]
        if None not in found and 1 < len(set(found)) <= len(found) // 2:
            return pattern
    return _PATTERNS[0]


def _above(tree: Tree) -> str:
    """The advice to name the folder above, where the root is a class folder among others."""
    root = Path(os.path.abspath(tree.root))  # noqa: PTH100 - links stay as they are
    try:
        beside = [name for name in Tree(root.parent).folders() if name != root.name]
        others = any(Tree(root.parent).images_in(name) for name in beside[:20])
    except VisionAdaptError:
        return ""
    return f", or give {root.parent} if {root.name} is itself a class" if others else ""


def _tables(tree: Tree, parts: Sequence[Part]) -> Iterator[str]:
    """The specs of the tables beside the images that name them and their labels."""
    for folder in dict.fromkeys(("", *(part.folder for part in parts))):
        for path in sorted((tree.root / folder).iterdir()):
            kind = SUFFIXES.get(path.suffix.lower())
            if kind is not None and path.is_file() and not path.name.startswith("."):
                text = _table(path, kind)
                if text is not None:
                    yield text


def _table(path: Path, kind: str) -> str | None:
    try:
        columns = TableSource(str(path), image="").columns
    except VisionAdaptError:
        return None
    image = _first(columns, _IMAGES)
    label = _first([name for name in columns if name != image], _LABELS)
    if image is None or label is None:
        return None
    return spec.written(kind, {"image": image, "label": label}).replace("(", f"({path}, ", 1)


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of the known names that is a column, whatever its case."""
    named = {name.strip().casefold(): name for name in reversed(columns)}
    return next((named[name] for name in known if name in named), None)


def _example(tree: Tree) -> str:
    names = sorted(os.listdir(tree.root))  # noqa: PTH208 - names alone
    return names[0] if names else "none: the folder is empty"
