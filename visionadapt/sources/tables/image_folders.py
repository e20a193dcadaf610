"""Which folders hold the images that a table names, by a sample of its paths. For messages only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from visionadapt.sources.tables.near_misses import NearMiss, candidates, near_miss
from visionadapt.sources.tables.paths import FilesBelow
from visionadapt.system.storage import MISSING

MOST_ROWS = 20_000
"""Rows of a table to guess folders from."""
_SAMPLE = 200
_TRIED = 5
"""So often another folder is looked for, which has a path that none so far has."""
_BELOW, _BESIDE = 0.5, 0.9
"""This share of the paths must be found in folders below the table's own; in others, which may be of another set."""


def sampled(paths: Sequence[str]) -> list[str]:
    """Return some of the paths, of every part of the table."""
    every = list(dict.fromkeys(paths))
    return every[:: max(len(every) // _SAMPLE, 1)]


def best_options(files: FilesBelow, paths: Sequence[str], several: bool) -> Mapping[str, object]:
    """Return the options `root` and `suffix` with which a table's files are found; none where that is unclear."""
    missing = [path for path in paths if files.find(path).problem is not None]
    misses = (agreed_miss(files, path, paths, several) for path in missing[:_TRIED])
    return next((miss.options for miss in misses if miss is not None and miss.options), {})


def agreed_miss(files: FilesBelow, text: str, paths: Sequence[str], several: bool) -> NearMiss | None:
    """Return what a path without a file may mean, as `near_miss` does, with options that find the other paths too.

    None where the file is in a folder that has few of the others. Without options where two folders have the same
    files; both are then named.

    Args:
        files: the files that the table can name.
        text: the path.
        paths: paths of the table, such as `sampled` returns.
        several: whether `root` may be several folders.
    """
    miss = near_miss(files, text)
    if miss is None or not miss.options or files.find(text).problem != MISSING:
        return miss
    own = {path for path in paths if files.find(path).problem is None}
    found, chosen = set(own), dict[tuple[str, str], NearMiss]()
    for _ in range(_TRIED):
        path = next((each for each in (text, *paths) if each not in found), None)
        places = [] if path is None else _most(files, path, {text, *paths} - found)
        if len(places) > 1:
            first, other = [place.found.removeprefix("there is ") for _, place in places[:2]]
            return NearMiss(f"there is {first} and {other}: give root= or suffix= for the one that is meant")
        for covered, place in places:
            chosen[place.options.get("root", str(files.root)), place.options.get("suffix", "")] = place
            found |= covered
    below = all(Path(root).is_relative_to(files.root) for root, _ in chosen)
    if len(found.intersection(paths)) <= (_BELOW if below else _BESIDE) * len(paths):
        return replace(miss, options={}) if below else None
    every = ([*map(str, files.roots)] if own else []) + [root for root, _ in chosen]
    suffixes = {suffix for _, suffix in chosen}
    if (len(every) > 1 and not several) or len(suffixes) > 1 or (own and suffixes != {""}):
        return replace(miss, options={})
    options = {"root": every[0] if len(every) == 1 else every, "suffix": suffixes.pop()}
    return replace(miss, options={name: value for name, value in options.items() if value and value != str(files.root)})


def _most(files: FilesBelow, path: str, paths: Collection[str]) -> list[tuple[set[str], NearMiss]]:
    """The places where a file of a path is that have most of the other paths, those below the folder first."""
    found = [(_found(files, place, paths), place) for place in candidates(files, path)]
    inside = [each for each in found if Path(str(each[1].options.get("root", files.root))).is_relative_to(files.root)]
    most = max((len(covered) for covered, _ in inside or found), default=0)
    return [each for each in inside or found if len(each[0]) == most]


def _found(files: FilesBelow, place: NearMiss, paths: Collection[str]) -> set[str]:
    """The paths that are found with the options of a place."""
    root, suffix = place.options.get("root", files.root), place.options.get("suffix", files.suffix)
    there = FilesBelow(str(root), files.max_bytes, str(suffix), files.home)
    return {path for path in paths if there.find(path).problem is None}
