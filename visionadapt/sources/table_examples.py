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


def tables_in(folder: Path) -> Iterator[str]:
    """Yield the settings of the tables in a folder that have columns for images and labels, the likeliest first."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    for path in sorted(paths, key=_doubt):
        with suppress(VisionAdaptError):
            example = _example(path)
            if example is not None and _OPEN not in example:
                yield example


def pixel_tables(folder: Path) -> Iterator[Path]:
    """Yield the tables in a folder that hold pixels as numbers."""
    for path in sorted(folder.iterdir()):
        with suppress(VisionAdaptError):
            if path.suffix.lower() in SUFFIXES and path.is_file() and TableSource(path).holds_pixels:
                yield path


def _example(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return list_example(path) if suffix == LIST else TableSource(path).example if suffix in SUFFIXES else None


def list_example(path: Path) -> str | None:
    """Return the settings of a text file whose first line names an image; None for others.

    Raises:
        SourceError: the file cannot be read.
    """
    for delimiter in (None, " "):
        table = TableSource(path, format="csv", delimiter=delimiter)
        if likely_data(table.columns):
            return table.example
    return None


def _doubt(path: Path) -> int:
    """How unlikely it is that a table holds labels to train on, by its name: 3 for an example of answers to send in."""
    if _SUBMISSION.search(path.stem):
        return 3
    return {"train": 0, None: 1}.get(split_of_folder(path.stem)[0], 2)
