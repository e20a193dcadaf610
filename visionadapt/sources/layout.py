"""Which folders below a root are splits, and which are classes; where that is unclear, an error that says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from visionadapt.core.naming import folded_name, listed
from visionadapt.errors import SourceError
from visionadapt.sources.lists_beside import lists_remedy
from visionadapt.sources.not_classes import LAST_FOLDER, check_beside, holding_folders
from visionadapt.sources.split_names import SPLIT_NAMES, is_wrapper, split_of_folder
from visionadapt.sources.tree import Tree, joined, spelled

ORDER = ("train", "val", "test")
_SPLIT_WORDS = re.compile("|".join(sorted(SPLIT_NAMES, key=len, reverse=True)), re.IGNORECASE)
_DEEPEST = 4
"""How far below the only folder its class folders are looked for."""

_SOUNDS = re.compile(r"(?:^|[\W\d_])(?:train|test|valid)", re.IGNORECASE)
_PART_WORDS = re.compile(r"\b(?:part|batch|chunk|shard|images?|imgs?|photos?|pictures?|data|dataset)s?\b")
_SERIES = re.compile(
    r"(part|batch|fold|set|subset|split|session|round|run|subject|subj|patient|person|participant|user|case|study|site|"
    r"hospital|camera|cam|device|scanner)?s?"
)
"""What folders are called that hold the same classes each, before a number."""
_CASES = re.compile(r"(patient|case|study|subject|subj|participant|scan|exam|visit)s?")
"""What folders are called, before a number, that hold the images of one of many cases, and are no classes."""
_SUBJECT = re.compile("sub-[0-9]+")
"""What the Brain Imaging Data Structure calls the folder of a case."""
_VERSION = re.compile(
    r"(original|orig|raw|augment|aug|resiz|crop|process|preprocess|colou?r|gr[ae]y|segment|mask|rgb|nir|thermal|enhanc|"
    r"denois|normali[sz]|synthetic)"
)
"""How a word begins that tells one version of images from another."""
_UNLABELLED = re.compile("unlabel|unsup|extra", re.IGNORECASE)
"""What folders beside splits are called that hold images without labels."""
_SHARED = 0.5
"""Share of the smaller of two sets of classes that is in the other, from which on they count as the same."""


@dataclass(frozen=True)
class Part:
    """A folder of class folders, or of images of one class.

    Attributes:
        split: train, val or test; None where the rows are to be divided.
        folder: the folder, as a path below the root; empty for the root.
        label: the class of all its files; None where the folders in it are the classes.
    """

    split: str | None
    folder: str
    label: str | None = None


def find_parts(tree: Tree) -> tuple[Part, ...]:
    """Return the parts of a folder: its splits in the order train, val, test, or the root alone.

    1. Folders are splits if their names say so, whatever else the names say, and the same classes are in train and in
       another; or if their names say nothing else, and no other folder holds images.
    2. Each class may hold folders that are splits.
    3. Otherwise the folders are classes, and a folder called `test` among other classes is one of them.

    Raises:
        SourceError: the names look like splits and the folders do not, a single folder holds all others, or each folder
            is a patient or another case.
    """
    if not tree.folders():
        return (Part(None, ""),)
    parts = _splits(tree)
    if not parts:
        _check_depth(tree)
        parts = _splits_of_each_class(tree)
    if not parts:
        check_beside(tree)
        _check_repeated(tree)
    _check_cases(tree, parts or [Part(None, "")])
    return tuple(sorted(parts, key=lambda part: ORDER.index(part.split or ""))) if parts else (Part(None, ""),)


def find_splits(tree: Tree) -> tuple[Part, ...]:
    """Return the parts of a folder without class folders: those whose names are splits, if one is train."""
    named = _named(tree.folders(), only=True)
    parts = [Part(split, name) for name, split in named.items()]
    if "train" not in named.values() or (len(set(named.values())) == 1 and _others(tree, named)):
        return (Part(None, ""),)
    return tuple(sorted(parts, key=lambda part: ORDER.index(part.split or "")))


def inner_folder(tree: Tree, folder: str) -> str:
    """Return the folder that really holds the classes: `train/train` where `train` holds nothing else.

    Beside it may be a folder that is about its images: `train/labels` beside `train/images`.
    """
    names = holding_folders(tree, folder)
    if len(names) == 1 and not tree.images(folder):
        own = folder.rpartition("/")[2]
        inside = joined(folder, names[0])
        alike = folded_name(names[0]) == folded_name(own)
        same = split_of_folder(names[0])[0] is not None and split_of_folder(names[0])[0] == split_of_folder(own)[0]
        if (alike or same or is_wrapper(names[0])) and tree.folders(inside):
            return inside
    return folder


def told_layout(tree: Tree, parts: Sequence[Part]) -> str | None:
    """Return how folders were understood, as a line; None where they are called train, val and test, or are classes."""
    if parts == (Part(None, ""),):
        repeated = repeated_folders(tree)
        return f"{listed(repeated)}, which all class folders hold, are no classes" if repeated else None
    divided = [part.folder for part in parts if part.label is not None]
    if divided:
        return f"each class has a folder for each split, such as {divided[0]}"
    named = [(part.split, part.folder) for part in parts if part.split is not None]
    if all(folder.casefold() == split for split, folder in named):
        return None
    return ", ".join(f"{folder or '.'} is {split}" for split, folder in named if folder.casefold() != split)


def _splits(tree: Tree) -> list[Part]:
    """Folders of the root that are splits; none where they are classes."""
    only = _named(tree.folders(), only=True)
    every = _named(tree.folders(), only=False)
    inner = {name: inner_folder(tree, name) for name in every}
    inner |= {name: folder for name in every if (folder := _images_of(tree, name, inner)) is not None}
    classes = {name: _folded(tree.folders(inner[name])) for name in every}
    nested = {name: split for name, split in every.items() if classes[name]}
    repeated = _repeated(nested, classes)
    if repeated:
        chosen = {name: split for name, split in every.items() if name in repeated or name in only}
        _check_copies(tree, chosen, only)
        return [Part(split, inner[name]) for name, split in chosen.items()]
    parts = [Part(split, inner[name]) for name, split in only.items()]
    others = _others(tree, only)
    nested = {name: split for name, split in nested.items() if name in only}
    if not others or (not nested and all(map(_UNLABELLED.search, others))):
        return parts if nested or "train" in only.values() else []
    among = set().union(*(classes[name] for name in nested)) & _folded(others) if nested else set()
    trained = [name for name, split in nested.items() if split == "train"]
    open_train = any(len(classes[name]) > 1 and not tree.images(inner[name]) for name in trained)
    both = bool(trained) and len(set(nested.values())) > 1
    every_named = len(set(every.values())) > 1 and not _others(tree, every)
    if both or among or every_named or (open_train and (len(others) == 1 or len(set(only.values())) > 1)):
        _refuse(tree, every if every_named else only, others)
    return []


def _images_of(tree: Tree, name: str, inner: Mapping[str, str]) -> str | None:
    """The folder in a split that holds all of its images, and is no class: `train/train`, or `val/images`."""
    inside = holding_folders(tree, inner[name])
    if len(inside) != 1 or tree.images(inner[name]) or tree.classes(place := joined(inner[name], inside[0])):
        return None
    held = [holding_folders(tree, other) for other in inner.values()]
    classes = {each for names in held if len(names) > 1 for each in names}
    same = split_of_folder(inside[0])[0] == split_of_folder(name)[0]
    return place if (same or is_wrapper(inside[0])) and inside[0] not in classes else None


def _repeated(nested: Mapping[str, str], classes: Mapping[str, frozenset[str]]) -> set[str]:
    """The names of train folders and others that share classes; empty where no train and other do."""
    trained = {name for name, split in nested.items() if split == "train"}
    own = frozenset[str]().union(*(classes[name] for name in trained))
    others = {name for name in nested if name not in trained and _share(classes[name], own) >= _SHARED}
    found = frozenset[str]().union(*(classes[name] for name in others))
    return others | {name for name in trained if _share(classes[name], found) >= _SHARED} if others else set()


def _check_copies(tree: Tree, named: Mapping[str, str], only: Mapping[str, str]) -> None:
    """Raise SourceError if a folder such as `train_augmented` is beside `train`: its images may be copies."""
    more = [name for name, split in named.items() if name not in only and split in only.values()]
    if not more:
        return
    every = {split: [name for name in named if named[name] == split] for split in ORDER if split in named.values()}
    without = {split: [name for name in names if name not in more] for split, names in every.items()}
    raise SourceError(
        f"{tree.root}: {more[0]} may hold copies of the images in another folder of the split {named[more[0]]}: leave "
        f"it out by {spelled(tree.root, without)}, or give {spelled(tree.root, every)} where its images are others"
    )


def _share(some: frozenset[str], others: frozenset[str]) -> float:
    return len(some & others) / max(min(len(some), len(others)), 1)


def _refuse(tree: Tree, named: Mapping[str, str], others: Sequence[str]) -> NoReturn:
    given: dict[str, list[str]] = {split: [name for name in named if named[name] == split] for split in ORDER}
    beside = sorted(set(others) - set(named))
    if not given["train"]:
        given["train"] = ["."]
    also = f", beside {listed(beside)}," if beside else ""
    if not beside and not any(tree.folders(name) for name in named):
        remedy = f"find both in the paths, such as by {spelled(tree.root, _patterns(named))}"
    else:
        remedy = f"say which: {spelled(tree.root, {split: names for split, names in given.items() if names})}"
    raise SourceError(
        f"{tree.root}: {listed(named)}{also} may be splits or classes; {remedy}, or train=. where the folders of "
        f"{tree.root} are the classes"
    )


def _patterns(names: Iterable[str]) -> dict[str, str]:
    """Regular expressions that find class and split in folder names such as `cat_train` or `train_cat`."""
    words = "|".join(dict.fromkeys(match[0] for name in names for match in _SPLIT_WORDS.finditer(name)))
    behind = all(re.search(f"({words})[^a-zA-Z]*$", name) for name in names)
    return {
        "label": f"([^/]+?)[ ._-]*(?:{words})[^/]*/" if behind else f"(?:{words})[ ._-]*([^/]+)/",
        "split": f"^[^/]*?({words})",
    }


def _check_depth(tree: Tree) -> None:
    """Raise SourceError if a single folder holds all images, in several folders."""
    names = tree.classes("")
    if len(names) != 1 or tree.images(names[0]):
        return
    place, inside = names[0], tree.classes(names[0])
    for _ in range(_DEEPEST):
        if len(inside) == 1 and not tree.images(joined(place, inside[0])):
            place = joined(place, inside[0])
            inside = tree.classes(place)
    if len(inside) > 1:
        raise SourceError(
            f"{tree.root} holds one folder, {names[0]}, which would be the only class: name the folder that holds "
            f"{listed(inside)}, {tree.root / place}{lists_remedy(tree.root / place)}, or give "
            f"{spelled(tree.root, {'train': '.'})} where {names[0]} is a class"
        )


def _splits_of_each_class(tree: Tree) -> list[Part]:
    """Folders called train, val and test in each class folder; none where the classes have none."""
    names = tree.classes("")
    if not any(_is_divided(tree, name) for name in names):
        _check_splits_below(tree, names)
        return []
    parts: list[Part] = []
    for name in names:
        inside = tree.folders(name)
        named = _named(inside, only=True)
        odd = next((each for each in inside if each not in named and tree.has_files(joined(name, each))), None)
        if odd is not None or not named or tree.images(name):
            what = f"{odd} too" if odd is not None else "images outside of them too" if named else "none"
            _refuse_inner(tree, name, what)
        for folder, split in named.items():
            place = joined(name, folder)
            if len(tree.folders(place)) > 1 and not tree.images(place):
                _refuse_inner(tree, name, f"{listed(tree.folders(place))} in {folder}")
            parts.append(Part(split, place, name))
    return parts


def _check_splits_below(tree: Tree, names: Sequence[str]) -> None:
    """Raise SourceError if one of several folders holds splits, further down."""
    for name in names:
        place = name
        for _ in range(_DEEPEST):
            inside = tree.folders(place)
            if len(inside) != 1 or tree.images(place):
                break
            place = joined(place, inside[0])
            if _is_divided(tree, place):
                raise SourceError(
                    f"{tree.root}: {name} would be a class, but it holds the splits "
                    f"{listed(_named(tree.folders(place), only=True))}: name the folder that holds them, "
                    f"{tree.root / place}, or give {spelled(tree.root, {'train': '.'})} where {name} is a class"
                )


def _is_divided(tree: Tree, folder: str) -> bool:
    splits = set(_named(tree.folders(folder), only=True).values())
    return "train" in splits and len(splits) > 1


def _refuse_inner(tree: Tree, name: str, what: str) -> NoReturn:
    divided = next(each for each in tree.classes("") if _is_divided(tree, each))
    splits = _named(tree.folders(divided), only=True)
    given = spelled(tree.root, {"train": ".", "split": f"/({'|'.join(map(re.escape, splits))})/"})
    raise SourceError(
        f"{tree.root / divided} holds the splits {listed(splits)}, but {tree.root / name} holds {what}: name one of "
        f"these folders, or give {given} where the folders of {tree.root} are the classes"
    )


def _check_repeated(tree: Tree) -> None:
    """Raise SourceError if the folders rather are parts of one set than its classes.

    That is so if all hold the same folders, more than they are or under names that sound like splits, versions
    (`original`, `augmented`) or a series (`fold_1`, `subject2`), and if their names are numbers of parts, such as
    `images_1` and `images_2`.
    """
    names = tree.folders()
    if len(names) < 2:
        return
    plain = _words_only(names)
    numbered = len(plain) == 1 and _PART_WORDS.search(min(plain)) is not None
    repeated = repeated_folders(tree)
    sounding = any(split_of_folder(name)[0] or _SOUNDS.search(name) for name in names)
    versions = all(any(map(_VERSION.match, re.findall(r"[a-z]+", name.casefold()))) for name in names)
    series = len(plain) == 1 and _SERIES.fullmatch(min(plain)) is not None
    if repeated and (len(repeated) > max(len(names), 2) or numbered or sounding or versions or series):
        each = {"train": names[0], "val": names[1]} if sounding else {"label": LAST_FOLDER, "group": "^[^/]+"}
        what = "what each is" if sounding else "where none has copies of another's images, all of them"
        raise SourceError(
            f"{tree.root}: {listed(names)} hold the same folders ({listed(repeated)}), which look like the classes: "
            f"name one of them, such as {tree.root / names[0]}, or {what}: {spelled(tree.root, each)}, or train=. "
            f"where {listed(names)} are the classes"
        )
    if numbered:
        raise SourceError(
            f"{tree.root}: {listed(names)} look like parts of one set, and not like classes: give a table of the "
            f"labels, or label=, or {spelled(tree.root, {'train': '.'})} where they are the classes"
        )


def _check_cases(tree: Tree, parts: Sequence[Part]) -> None:
    """Raise SourceError if the folders of a part are rather patients, or other cases, than classes."""
    for part in parts:
        names = tree.folders(part.folder) if part.label is None else []
        plain = _words_only(names)
        subjects = all(map(_SUBJECT.fullmatch, names))
        if len(names) < 2 or len(plain) > 1 or not (subjects or _CASES.fullmatch(min(plain))):
            continue
        given: dict[str, list[str]] = {}
        for split, place in (*((each.split or "train", each.folder or ".") for each in parts), *tree.lists):
            given.setdefault(split, []).append(place)
        raise SourceError(
            f"{tree.root / part.folder}: {listed(names)} look like cases of one set, and not like classes: give a "
            f"table of the labels, or label= and group=, or {spelled(tree.root, given)} where they are the classes"
        )


def _words_only(names: Iterable[str]) -> set[str]:
    """The different names that are left without digits and punctuation, in lower case."""
    return {re.sub(r"[\W\d_]+", " ", name).strip().casefold() for name in names}


def repeated_folders(tree: Tree) -> list[str]:
    """Return the folders that are in all class folders: none if one holds images itself, or they are only numbers."""
    places = [inner_folder(tree, name) for name in tree.folders()]
    first = tree.folders(places[0]) if places else []
    inside = _folded(first)
    if len(places) < 2 or len(inside) < 2 or not any(character.isalpha() for name in inside for character in name):
        return []
    for place in places:
        if tree.images(place) or _share(_folded(tree.folders(place)), inside) < _SHARED:
            return []
    return first


def _named(names: Iterable[str], only: bool) -> dict[str, str]:
    """The split of each folder whose name tells one; with `only`, and nothing else."""
    told = {name: split_of_folder(name) for name in names}
    return {name: split for name, (split, alone) in told.items() if split is not None and (alone or not only)}


def _others(tree: Tree, named: Iterable[str]) -> list[str]:
    """Folders of the root that hold images and have other names."""
    return [name for name in tree.folders() if name not in {*named} and tree.has_files(name)]


def _folded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(folded_name, names))
