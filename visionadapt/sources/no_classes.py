"""Why a folder has no classes, and what to give instead: another folder, a pattern, or the table beside the images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from visionadapt.core import spec
from visionadapt.core.naming import listed
from visionadapt.errors import VisionAdaptError
from visionadapt.sources.arguments import several
from visionadapt.sources.label_files import arrays_alone, other_labels
from visionadapt.sources.layout import Part
from visionadapt.sources.lists_beside import first_lists, lists_beside
from visionadapt.sources.table_examples import tables_in, with_all_splits
from visionadapt.sources.tree import Place, Tree, spelled
from visionadapt.system.text import for_shell

_PATTERNS = ("([a-z]+)_[0-9]+", "([^/]+?)[ ._-]*[0-9]+[.]", "[0-9]+[ ._-]+([A-Za-z]+)")


def why_no_classes(tree: Tree, parts: Sequence[Part], label: str | None) -> str:
    """Return one line for a folder without a class: what is there, and what to give as `--data`."""
    root = tree.root
    if label is not None:
        return f"{root}: label={label!r} finds no class in any path; it is searched in paths such as {_example(tree)}"
    below = " or ".join(str(root / part.folder) for part in parts if part.folder)
    start = f"{root} has no class folders{f' in {below}' if below else ''}"
    tables = [*_tables(tree, parts)] or [*_tables_above(tree)]
    if tables:
        tables = with_all_splits(tables)
        return f"{start}; there is a table, though: give --data {for_shell(tables[0])}{_others(tables[1:])}"
    flat = [part.folder for part in parts if tree.images(part.folder)]
    other = other_labels(tree, flat) if flat else None
    if other is not None:
        return f"{start}; {other}, or put the images of each class into a separate folder"
    if not flat:
        arrays = arrays_alone(tree)
        return (
            f"{start}; {arrays}"
            if arrays is not None
            else f"{start}: put the images of each class into a separate folder"
        )
    by_name = spelled(root, {"label": _pattern(tree, parts), **first_lists(lists_beside(root))})
    return (
        f"{start}: put the images of each class into a separate folder, name the class in the files' names by a "
        f"regular expression, such as {by_name}{_above(tree)}"
    )


def table_beside(tree: Tree) -> str | None:
    """Return the settings of a table beside the folders of a root that has columns for images and labels, if any.

    Where it is that of a split, they are those of all splits.
    """
    tables = [*_tables(tree, ())]
    return with_all_splits(tables)[0] if tables else None


def is_table_beside(tree: Tree) -> bool:
    """Whether a table beside the folders of a root has columns for images and labels."""
    return next(_tables(tree, ()), None) is not None


def _pattern(tree: Tree, parts: Sequence[Part]) -> str:
    """A regular expression that finds classes in the names of the images, such as what is before a number."""
    names = [name for part in parts if part.split != "test" for name in tree.images(part.folder)]
    for pattern in _PATTERNS:
        found = [match[1] if (match := re.match(pattern, name)) else None for name in names]
        if None not in found and 1 < len(set(found)) <= len(found) // 2:
            return pattern
    return _PATTERNS[0]


def _above(tree: Tree) -> str:
    """The advice to name the folder above, where the root is a class folder among others."""
    if isinstance(tree.root, Place):
        return ""
    root = Path(os.path.abspath(tree.root))  # noqa: PTH100 - links stay as they are
    try:
        beside = [name for name in Tree(root.parent).folders() if name != root.name]
        others = any(Tree(root.parent).images(name) for name in beside[:20])
    except VisionAdaptError:
        return ""
    return f", or give {root.parent} if {root.name} is itself a class" if others else ""


def _tables(tree: Tree, parts: Sequence[Part]) -> Iterator[str]:
    """The settings of the tables beside the images that have columns for images and labels."""
    root = tree.root
    if isinstance(root, Place):
        return
    for folder in dict.fromkeys(("", *(place for part in parts for place in _with_above(part.folder)))):
        yield from tables_in(root / folder)


def _tables_above(tree: Tree) -> Iterator[str]:
    """The settings of the tables in the folder above the root that name images in the root."""
    if isinstance(tree.root, Place):
        return
    root = Path(os.path.abspath(tree.root))  # noqa: PTH100 - links stay as they are
    for text in tables_in(root.parent):
        named = several(spec.parse(text, "source").root)
        if any(Path(os.path.abspath(folder)).is_relative_to(root) for folder in named):  # noqa: PTH100
            yield text


def _others(texts: Sequence[str]) -> str:
    """The names of other tables."""
    paths = [path for text in texts for path in several(spec.parse(text, "source").path)]
    return f"; further tables: {listed(paths)}" if paths else ""


def _with_above(folder: str) -> tuple[str, str]:
    """A folder, and the one that holds it: of `val/images`, a table may lie in `val`."""
    return folder.rpartition("/")[0], folder


def _example(tree: Tree) -> str:
    found = next((found.location for found in tree.walk()), None)
    return found or "none: the folder is empty"
