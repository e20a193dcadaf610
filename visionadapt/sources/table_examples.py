"""The settings with which the tables in a folder are probably read, also lists of files called `.txt`. For messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from visionadapt.errors import VisionAdaptError
from visionadapt.sources.split_names import split_of_folder
from visionadapt.sources.table import TableSource
from visionadapt.sources.tables.guessing import likely_data
from visionadapt.sources.tables.readers import SUFFIXES

LIST = ".txt"
_SUBMISSION = re.compile("submission|sample|example", re.IGNORECASE)
_OPEN = "…"
_MOST = 20
"""Tables that are looked at in a folder, which may hold one for each of its images."""


def tables_in(folder: Path) -> Iterator[str]:
    """Yield the settings of the tables in a folder that have columns for images and labels, the likeliest first."""
    for path in sorted(_files(folder), key=_doubt)[:_MOST]:
        with suppress(VisionAdaptError):
            example = _example(path)
            if example is not None and _OPEN not in example:
                yield example


def pixel_tables(folder: Path) -> Iterator[Path]:
    """Yield the tables in a folder that hold pixels as numbers."""
    for path in sorted(_files(folder), key=_doubt)[:_MOST]:
        with suppress(VisionAdaptError):
            if path.suffix.lower() in SUFFIXES and TableSource(path).holds_pixels:
                yield path


def _files(folder: Path) -> list[Path]:
    """The tables and lists in a folder, by their names."""
    named = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in {LIST, *SUFFIXES}]
    return [path for path in named if path.is_file() and not path.name.startswith(".")]


def _example(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return list_example(path) if suffix == LIST else TableSource(path).example if suffix in SUFFIXES else None


def list_example(path: Path) -> str | None:
    """Return the settings of a text file whose first line names an image; None for others.

    Raises:
        SourceError: the file cannot be read.
    """
    tables = [TableSource(path, format="csv", delimiter=delimiter) for delimiter in (None, " ")]
    read = [table for table in tables if likely_data(table.columns)]
    found = [table.example for table in sorted(read, key=lambda table: -len(table.columns))]
    return next((example for example in found if _OPEN not in example), next(iter(found), None))


def _doubt(path: Path) -> tuple[int, bool]:
    """How unlikely it is that a table holds labels to train on, by its name and kind.

    An example of answers to send in is the unlikeliest; JSON and text files may be annotations of a single image.
    """
    rank = {"train": 0, None: 1}.get(split_of_folder(path.stem)[0], 2)
    return 3 if _SUBMISSION.search(path.stem) else rank, path.suffix.lower() in {LIST, ".json"}
