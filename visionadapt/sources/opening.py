"""Open what stands for rows: the text of `--data`, a folder, a table in memory, a list."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from visionadapt.core import spec
from visionadapt.core.naming import listed
from visionadapt.core.records import FrozenSource, Manifest, Source
from visionadapt.errors import SourceError, UsageError
from visionadapt.sources import BucketSource, FolderSource, MemorySource, ShardSource, TableSource
from visionadapt.sources.archives.patterns import compressed, is_archive, is_compressed
from visionadapt.sources.hub import hub_files, is_hub_address
from visionadapt.sources.memory import arrow_table, is_table
from visionadapt.sources.objects.urls import is_object_url
from visionadapt.sources.shards import folders_of_archives
from visionadapt.sources.table_examples import LIST, list_example
from visionadapt.sources.tables.contents import PIXELS, SPREADSHEETS, WRITE_OUT, kind_of
from visionadapt.sources.tables.readers import SUFFIXES, Format
from visionadapt.sources.tables.several import FILE_SUFFIXES, check_one_set, table_files
from visionadapt.sources.walk import is_image, is_sidecar
from visionadapt.system.text import for_shell

_SAVED = frozenset({"dataset_info.json", "dataset_dict.json", "state.json"})
"""Files in a folder that the `datasets` library has saved."""
_NOTES = ".md"
_IMAGE_COLUMNS = ("image", "file", "path")
_SETTINGS = re.compile(r"(?:[\w.:]+|[^\s()]+\.py:[\w.]+)\(")


class ArrowTable(Protocol):
    """A DataFrame or an Arrow table."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the rows."""


RowsLike = Source | Manifest | str | os.PathLike[str] | ArrowTable | Sequence[tuple[Any, Any]]
"""Whatever stands for rows:

- a source, or a `Manifest`, such as a split;
- a folder's path, or a settings text as in `--data`;
- a pandas DataFrame, an Arrow table, or any object with `__arrow_c_stream__`. Its columns are found by their names:
  `image`, `file` or `path` (relative to the current folder), and where they exist `label`, `group` and `split`. For
  other names, give `sources.MemorySource(table, image=…, label=…)`;
- a list of `(path, label)`, where a label is a string, a list of strings, or None.
"""


def open_source(text: str) -> Source:
    """Open an existing folder, a data set on the Hugging Face hub, or the source that a settings text stands for.

    Raises:
        SourceError: there is no such folder, the text stands for something else, or the source cannot be opened.
        SpecError: the text cannot be read.
    """
    return _hub_source(text) if is_hub_address(text) else _opened(text)


def _opened(text: str) -> Source:
    if re.match(r"https?://", text):
        raise SourceError(_about_url(text))
    if is_archive(text) and not _SETTINGS.match(text):
        return ShardSource(text)
    if is_object_url(text):
        return _bucket(text)
    if text.startswith("~/"):
        text = os.path.expanduser(text)  # noqa: PTH111
    if os.path.isfile(text):  # noqa: PTH113 - a Path refuses a text longer than a file's name
        raise SourceError(_about_file(text))
    names = _names_in(text)
    archives = [name for name in names if not name.lower().endswith(_NOTES)]
    if archives and all(map(is_archive, archives)):
        return ShardSource(text)
    if (table := _saved_table(text, names)) is not None:
        raise SourceError(f"{text} holds a table: give --data {for_shell(table.example)} {table.columns_told}")
    if os.path.exists(text) or not _SETTINGS.match(text):  # noqa: PTH110 - a Path refuses a text longer than a file's name
        return FolderSource(text)
    source: Source = spec.parse(text, "source", allow_import=True)
    missing = _missing(source)
    if missing:
        raise SourceError(f"{text}: {type(source).__name__} is no source, for it has no {' and no '.join(missing)}")
    return source


def advice_for_path(text: str) -> str | None:
    """Return what to give in place of the path of an image that is a table, a list or a source; None for others."""
    if not os.path.exists(text) and _SETTINGS.match(text):  # noqa: PTH110 - a Path refuses a text longer than a file's name
        return f"{text} is no file: give --data {for_shell(text)}"
    suffix = Path(text).suffix.lower()
    if os.path.isfile(text) and suffix == LIST:  # noqa: PTH113
        return f"{text} is a text file: give {for_shell(f'@{text}')} for the images that it lists"
    return _about_file(text) if os.path.isfile(text) and suffix in SUFFIXES else None  # noqa: PTH113


def _bucket(url: str) -> BucketSource:
    if Path(url).suffix.lower() in SUFFIXES:
        raise SourceError(_about_file(url))
    return BucketSource(url)


def open_images(text: str) -> Source:
    """Open what a text stands for as `open_source` does, but take every file of a folder as an unlabelled image."""
    source = open_source(text)
    if isinstance(source, FolderSource):
        return dataclasses.replace(source, labelled=False)
    return dataclasses.replace(source, label=None, split=None) if isinstance(source, ShardSource) else source


def _hub_source(text: str) -> FolderSource | ShardSource:
    """Open a data set on the hub as its files tell: archives, or a folder; of tables say what to give."""
    if is_archive(text):
        return ShardSource(text)
    found = hub_files(text)
    if found.is_file:
        local = found.fetched_file(found.address.path)
        raise SourceError(_about_file(local, str(found.address)))
    folders = folders_of_archives(found)
    if len(folders) == 1:
        return ShardSource(str(folders[0]))
    if folders:
        named = spec.written("shards", {"path": tuple(map(str, folders))}).replace("path=", "", 1)
        raise SourceError(f"{text} holds archives in several folders: give --data {for_shell(named)}")
    kind: Format = "arrow" if any(name.rpartition("/")[2] in _SAVED for name in found.names) else "parquet"
    tables = [name for name in found.names if name.lower().endswith(FILE_SUFFIXES[kind])]
    if tables and (kind == "arrow" or not any(map(is_image, found.names))):
        check_one_set(text, tables)
        first = found.fetched_file(tables[0])  # the others, which may be many, once it is clear how they are read
        local = first if found.is_pattern else found.local
        table = TableSource(local, format=kind)
        example = table.example.replace(_word(local), _word(str(found.address)), 1)
        raise SourceError(f"{text} holds a table: give --data {for_shell(example)} {table.columns_told}")
    if all(map(is_sidecar, found.names)):  # known before a download, which may be large
        raise SourceError(f"{text} holds no images; its files are {listed(found.names)}")
    return FolderSource(found.fetched())


def source_of(rows: RowsLike) -> Source | Manifest:
    """Return the source that `rows` stands for; a manifest is returned unchanged.

    Raises:
        UsageError: `rows` is nothing that stands for rows, or a table without a column of images.
        SourceError, SpecError: a folder or a settings text cannot be opened.
    """
    if isinstance(rows, Manifest):
        return rows
    if isinstance(rows, (str, os.PathLike)):
        return open_source(os.fspath(rows))
    if isinstance(rows, (list, tuple)):
        return MemorySource(rows, "image", "label")
    if is_table(rows):
        return _table_source(rows)
    if not _missing(rows):
        return rows  # type: ignore[return-value]
    raise UsageError(
        "rows must be a source, a manifest, a folder's path, a settings text as in --data, a DataFrame, an Arrow table "
        f"or a list of (path, label), not {type(rows).__name__}"
    )


def manifest_of(rows: RowsLike) -> Manifest:
    """Return the manifest of whatever stands for rows; raise as `source_of` does."""
    source = source_of(rows)
    if isinstance(source, Manifest):
        return source
    return source.manifest() if isinstance(source, FrozenSource) else Manifest(source, source)


def _about_url(url: str) -> str:
    """What to give for a page of the hub, or another URL."""
    address = re.match(r"https?://(?:www\.)?huggingface\.co/(datasets/[^/\s]+/[^/\s?#]+)", url)
    text = f"hf://{address[1]}" if address else f"'api({url}, rows=…, image=…, label=…)'"
    return f"{url} is a URL: give --data {text}"


def _word(value: str) -> str:
    """A value as it stands in a settings text."""
    return spec.written("", {"": value}).removeprefix("(=").removesuffix(")")


def _about_file(local: str, path: str | None = None) -> str:
    """What to give for a file in place of a folder, which the user calls `path`."""
    path = path or local
    if is_compressed(path):
        return compressed(path)
    suffix = Path(path).suffix.lower()
    kind = SUFFIXES.get(suffix)
    if kind is None:
        other = kind_of(Path(local))
        if suffix in SPREADSHEETS:
            return f"{path} is a spreadsheet; export it as CSV (UTF-8), and give --data 'csv(…, image=…, label=…)'"
        if other is not None:
            return f"{path} {other}"
        if is_image(path):
            return f"{path} is a file, an image; give the folder that holds the class folders"
        example = list_example(Path(local)) if suffix == LIST else None
        if example is not None and "label=…" in example:
            return f"{path} is a list of images without their classes; give the folder that holds the class folders"
        if example is not None:
            return f"{path} is a list of images: give --data {for_shell(example.replace(_word(local), _word(path), 1))}"
        return f"{path} is a file; give the folder that holds the class folders, or a table: --data 'csv({path}, …)'"
    table = TableSource(local)
    if table.holds_pixels:
        return f"{path} {PIXELS}: {WRITE_OUT}"
    example = table.example.replace(_word(local), _word(path), 1)
    return f"{path} is a table: give --data {for_shell(example)} {table.columns_told}"


def _names_in(folder: str) -> frozenset[str]:
    """The names of what is in a folder, except hidden files; none where it is no folder, or cannot be listed."""
    try:
        return frozenset(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except (OSError, ValueError):
        return frozenset()


def _saved_table(folder: str, names: frozenset[str]) -> TableSource | None:
    """The table in a folder that the `datasets` library has saved, or that holds Parquet files alone; None without.

    They may lie in folders, as in a repository of the Hugging Face hub.
    """
    if not names:
        return None
    kind: Format = "arrow" if names & _SAVED else "parquet"
    alone = kind == "arrow" or all(_is_parquet(os.path.join(folder, name)) for name in names)  # noqa: PTH118
    return TableSource(folder, format=kind) if alone and table_files(folder, kind) else None


def _is_parquet(path: str, levels: int = 2) -> bool:
    """Whether a path is named like a Parquet file or notes, or is a folder of such files alone, or of such folders."""
    if path.lower().endswith((".parquet", _NOTES)):
        return True
    try:
        with os.scandir(path) as found:  # up to the first other file, for a folder may have millions
            entries = (entry for entry in found if not entry.name.startswith("."))
            return levels > 0 and all(_is_parquet(entry.path, levels - 1) for entry in entries)
    except (OSError, ValueError):
        return False


def _table_source(table: Any) -> MemorySource:
    rows = arrow_table(table)
    names = rows.column_names
    image = next((name for name in _IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise UsageError(
            f"the table has no column {', '.join(_IMAGE_COLUMNS[:-1])} or {_IMAGE_COLUMNS[-1]} "
            f"{MemorySource(rows).columns_told}; give {MemorySource(rows).example}"
        )
    label, group, split = (name if name in names else None for name in ("label", "group", "split"))
    return MemorySource(rows, image, label, group=group, split=split)


def _missing(source: Any) -> list[str]:
    """What a value lacks to be a source."""
    return [name for name in ("classes", "__iter__", "read") if name not in dir(source)]
