"""The settings with which the tables in a folder are probably read, also lists of files called `.txt`. For messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from visionadapt.core import spec
from visionadapt.errors import VisionAdaptError
from visionadapt.sources.split_names import SPLIT_NAMES, split_of_folder
from visionadapt.sources.table import TableSource
from visionadapt.sources.tables.guessing import likely_data
from visionadapt.sources.tables.readers import SUFFIXES
from visionadapt.sources.tables.several import split_of

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


def with_all_splits(texts: Sequence[str]) -> list[str]:
    """Return the settings of tables, where the first is of a split with those of its other splits put together.

    They are put together where they have the same columns, and the same options find the files of each.
    """
    tables = [spec.parse(text, "source") for text in texts]
    parts: dict[str, TableSource] = {}
    for table in tables:
        split = split_of(Path(str(table.path)))
        if split is not None and _found_by(table) == _found_by(tables[0]):
            parts.setdefault(split, table)
    if len(parts) < 2 or tables[0] not in parts.values():
        return list(texts)
    paths = [str(parts[split].path) for split in dict.fromkeys(SPLIT_NAMES.values()) if split in parts]
    with suppress(VisionAdaptError):
        joint = TableSource(paths, format=tables[0].format, delimiter=tables[0].delimiter).example
        if _OPEN not in joint and _found_by(spec.parse(joint, "source")) == _found_by(tables[0]):
            return [joint, *(text for text, table in zip(texts, tables, strict=True) if str(table.path) not in paths)]
    return list(texts)


def _found_by(table: TableSource) -> tuple[object, ...]:
    """The settings that find the rows and files of a table."""
    return table.format, table.root, table.suffix, table.header, table.delimiter


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
