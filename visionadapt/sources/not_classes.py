"""What among class folders is no class or no image by its name: annotations, folders within classes, masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from visionadapt.core.naming import letters_of
from visionadapt.errors import SourceError
from visionadapt.sources.lists_beside import lists_remedy
from visionadapt.sources.split_names import is_wrapper
from visionadapt.sources.tree import Tree, joined, spelled

_BESIDE = {
    *("annotation", "annotations", "bboxes", "boundingboxes", "devkit", "groundtruth", "imagesets", "imdb", "labels"),
    "masks",
    *("meta", "metadata", "segmentations", "trimaps", "xmls"),
}
"""What published sets call the folders that they have beside their images; without white space and punctuation."""
LAST_FOLDER = "([^/]+)/[^/]+$"


_MASK = re.compile(r"[ _.-](?:mask|masks|segmentation|annotation|gt)(?:[ _.-]?[0-9]+)?\.[A-Za-z0-9]+$", re.IGNORECASE)


class _Part(Protocol):
    """What is needed of a part of a folder: where it is, and its class if it has only one."""

    @property
    def folder(self) -> str: ...
    @property
    def label(self) -> str | None: ...


_IMAGES = {"jpegimages", "jpeg", "jpegs", "jpg", "jpgs", "png", "pngs"}


def check_beside(tree: Tree) -> None:
    """Raise SourceError if a folder would be a class that is rather something about the images beside it.

    That is so where its name says that, and it has no image, or the others are `images`, `data` and the like; and where
    it holds only annotations and tables beside the one of those.
    """
    names = tree.classes("")
    found = [name for name in names if letters_of(name) in _BESIDE]
    others = [name for name in names if name not in found]
    wrapped = any(map(_is_wrapper, others))
    if wrapped and len(others) == 1:
        found += [name for name in tree.folders() if name not in (*found, *others) and tree.sidecars(name)]
    if not found or not others or not (wrapped or all(_is_bare(tree, name) for name in found)):
        return
    if len(others) == 1:
        images = tree.root / others[0]
        remedy = f"name the folder of the images, {images}{lists_remedy(images)}"
    else:
        remedy = f"leave it out by {spelled(tree.root, {'drop': found})}"
    raise SourceError(
        f"{tree.root}: {found[0]}, beside {others[0]}, holds no class by its name or files: {remedy}, give a table of "
        f"the labels, or {spelled(tree.root, {'train': '.'})} where the folders are the classes"
    )


def holding_folders(tree: Tree, below: str) -> list[str]:
    """Return the folders in `below`, without those that by name and files are about the images in another one."""
    names = tree.folders(below)
    about = [name for name in names if letters_of(name) in _BESIDE and _is_bare(tree, joined(below, name))]
    others = [name for name in names if name not in about]
    return others if about and len(others) == 1 and _is_wrapper(others[0]) else names


def _is_wrapper(name: str) -> bool:
    return is_wrapper(name) or letters_of(name) in _IMAGES


def inner_folders(tree: Tree, parts: Sequence[_Part]) -> str | None:
    """Return a line that says of what class the images are that lie in folders of a class folder; None without such."""
    if any(part.label is not None for part in parts):
        return None
    for name, inner in _within(tree, parts):
        place = joined(name, inner[0])
        last = spelled(tree.root, {"label": LAST_FOLDER})
        return (
            f"all images below {name} are of one class, also those in {place}; {last} takes the last folder of each "
            "path as the class"
        )
    return None


def is_mask(name: str) -> bool:
    """Whether an image is named like a mask of another, such as `cat/0_mask.png`."""
    return _MASK.search(name) is not None


def masks_told(tree: Tree, names: Sequence[str]) -> str | None:
    """Return a line that says of masks that they are used as images; None where the first has no image beside it."""
    if not names:
        return None
    folder, _, name = names[0].rpartition("/")
    image = _MASK.sub("", name)
    if not any(each.rpartition(".")[0] == image for each in tree.images(folder)):
        return None
    return (
        f"images named like masks of others, such as {names[0]} ({len(names):,}), are used as images: move them out of "
        "the class folders if they are masks"
    )


def _within(tree: Tree, parts: Sequence[_Part]) -> Iterator[tuple[str, list[str]]]:
    """Yield the class folders that hold several folders of images and no image of their own."""
    for part in parts:
        for name in tree.folders(part.folder):
            place = joined(part.folder, name)
            inner = tree.classes(place)
            if len(inner) > 1 and not tree.images(place):
                yield place, inner


def _is_bare(tree: Tree, below: str) -> bool:
    """Whether no file below a folder is named like an image."""
    return not tree.images(below) and all(_is_bare(tree, joined(below, name)) for name in tree.folders(below))
