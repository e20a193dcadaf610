"""Where a table and its images are: on disk, or downloaded from the hub first; raise SourceError where nothing is."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from visionadapt.errors import SourceError
from visionadapt.sources.arguments import mode_of
from visionadapt.sources.hub import hub_files, shown
from visionadapt.sources.tables.readers import SUFFIXES
from visionadapt.sources.tables.several import FILE_SUFFIXES, check_one_set, names_several, table_files


def fetched_table(path: str, kind: str | None, alone: bool) -> str:
    """Download a table from the hub, and if it is `alone` the files of its folder; return where it is on disk.

    Raises:
        SourceError: it is no table, or not one.
    """
    found = hub_files(path)
    kind = kind or SUFFIXES.get(PurePosixPath(path).suffix.lower())
    suffixes = FILE_SUFFIXES.get(kind or "", ())
    if not found.is_file and not suffixes:
        raise SourceError(f"{path} is no table; name a file in it, such as {found.address}/metadata.csv")
    if suffixes and not found.is_file and not found.is_pattern:
        check_one_set(path, [name for name in found.names if name.lower().endswith(suffixes)])
    if not suffixes and alone:
        dataclasses.replace(found, address=found.address.above()).fetched()
    return found.fetched(suffixes)


def check_tables(paths: Iterable[str], kind: str | None, several: bool) -> None:
    """Raise SourceError where there is no table of a format; with `several`, a path may be a folder or a pattern."""
    folders = kind in FILE_SUFFIXES
    for path in paths:
        is_folder = os.path.isdir(path)  # noqa: PTH112 - a Path refuses some texts
        if (is_folder and not folders) or not (several and names_several(path)):
            if not stat.S_ISREG(mode_of("table", path)):
                raise SourceError(f"{path} is no regular file")
            continue
        for file in (files := table_files(path, kind or "")):
            if not stat.S_ISREG(mode_of("table", file)):
                raise SourceError(f"{file} is no regular file")
        if is_folder:
            check_one_set(shown(path), [Path(file).relative_to(path).as_posix() for file in files])
        if not files:
            more = ", or the folder that holds them" if folders else ""
            raise SourceError(f"{path}: there is no {kind} file; name one{more}")


def check_roots(roots: Iterable[str]) -> None:
    """Raise SourceError where an image folder is none, or on no disk."""
    for root in roots:
        if "://" in root:
            raise SourceError(f"root={root} is on no disk; give it alone, or copy its images here")
        if not stat.S_ISDIR(mode_of("folder", root)):
            raise SourceError(f"root={root} is no folder")
