"""Which lists of splits lie beside class folders that nobody has asked to use. For messages only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from visionadapt.core.naming import letters_of, listed, natural_key
from visionadapt.errors import SourceError, VisionAdaptError
from visionadapt.sources.split_lists import ListedPaths, SplitList
from visionadapt.sources.split_names import SPLIT_NAMES, is_wrapper, split_of_folder
from visionadapt.sources.table_examples import LIST
from visionadapt.sources.tables.readers import DELIMITERS, SUFFIXES
from visionadapt.sources.tree import Place, Tree, spelled
from visionadapt.sources.walk import suffix_of

_FOLDERS = frozenset(
    {"annotations", "imagelists", "imagesets", "imagesplits", "labels", "list", "lists", "meta", "metadata"}
    | {"partition", "partitions", "split", "splits", "traintestsplit", "traintestsplits"}
)
"""What published sets call the folders of their lists; without white space and punctuation."""
_KINDS = frozenset({LIST, *(suffix for suffix, kind in SUFFIXES.items() if kind in DELIMITERS)})
_MOST = 60
"""Files that are looked at in a folder, which may hold one for each of its images."""
_LOOKED_UP = 20
"""Paths of a list that are looked up to see whether it is one of these images; more than half must be there."""


def lists_beside(root: Path | Place) -> Mapping[str, Sequence[Path]]:
    """Return the lists by split that name images below a root and are called like splits, in natural order.

    They are in the root, in the folder above it where the root is called `images` or the like, or in a folder there
    that is called `meta`, `labels` or the like: the first of these that has any. The splits are in the order train,
    val, test.
    """
    if isinstance(root, Place):
        return {}
    places = [root]
    if is_wrapper(os.path.basename(os.path.abspath(root))):  # noqa: PTH100, PTH119 - links stay as they are
        places.append(root.parent if root.name not in {"", ".."} else root / "..")
    for place in places:
        for folder in (place, *_folders_of_lists(place)):
            found = _lists_in(folder, root)
            if found:
                return {split: found[split] for split in dict.fromkeys(SPLIT_NAMES.values()) if split in found}
    return {}


def first_lists(lists: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Return the first list of each split, as the options that name them."""
    return {split: str(paths[0]) for split, paths in lists.items()}


def lists_remedy(root: Path | Place) -> str:
    """Return how to name a root together with the lists of splits beside it, to follow its path; empty without any."""
    lists = first_lists(lists_beside(root))
    return f" (with its lists of splits {spelled(root, lists)})" if lists else ""


def lists_note(lists: Mapping[str, Sequence[Path]], root: Path, options: Mapping[str, object]) -> str:
    """Return a line that says of lists that they are not used, and which `--data` uses them beside other options."""
    first = first_lists(lists)
    more = [path.name for paths in lists.values() for path in paths[1:]]
    what, them = ("lists of splits, are", "them") if len(first) > 1 else ("a list of a split, is", "it")
    also = f" (there are others: {listed(more)})" if more else ""
    return f"{' and '.join(first.values())}, {what} not used{also}; {spelled(root, {**options, **first})} uses {them}"


def _folders_of_lists(place: Path) -> list[Path]:
    try:
        return [place / name for name in Tree(place).folders() if letters_of(name) in _FOLDERS]
    except SourceError:
        return []


def _lists_in(folder: Path, root: Path) -> dict[str, list[Path]]:
    """The lists in a folder that name images below a root, by split."""
    try:
        with os.scandir(folder) as entries:
            named = [entry.name for entry in entries if suffix_of(entry.name) in _KINDS]
    except OSError:
        return {}
    found: dict[str, list[Path]] = {}
    for path in [folder / name for name in sorted(named, key=natural_key)][:_MOST]:
        split = split_of_folder(path.stem)[0]
        if split is not None and path.is_file() and _names_images(SplitList(split, path), root):
            found.setdefault(split, []).append(path)
    return found


def _names_images(each: SplitList, root: Path) -> bool:
    """Whether more than half of the first paths of a list are those of images below a root."""
    with suppress(VisionAdaptError):
        paths = ListedPaths(root, each.path, max_bytes=1 << 28)
        locations = [paths.location(text) for _, text in islice(each.paths(), _LOOKED_UP)]
        return 2 * sum(place is not None and _is_there(root, place) for place in locations) > len(locations)
    return False


def _is_there(root: Path, location: str) -> bool:
    """Whether an image below a root has this path, with or without its suffix."""
    folder, _, name = location.rpartition("/")
    try:
        names = Tree(root).images(folder)
    except SourceError:
        return False
    return any(name in {each, each.rpartition(".")[0]} for each in names)
