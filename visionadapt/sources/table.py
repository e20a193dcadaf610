"""`TableSource`: images and labels listed in a CSV, TSV, JSON, JSON Lines, Parquet or Arrow file."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, get_args

from visionadapt.core import spec
from visionadapt.core.naming import listed
from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import flag, several, text
from visionadapt.sources.file_table import FileTable
from visionadapt.sources.hub import address_of, data_set_name, is_hub_address, local_path, shown
from visionadapt.sources.objects.below import READS_AHEAD, Below
from visionadapt.sources.objects.copies import ObjectVersion, object_version
from visionadapt.sources.objects.named import NamedObjects
from visionadapt.sources.objects.urls import is_object_url, object_url
from visionadapt.sources.table_places import check_roots, check_tables, fetched_table
from visionadapt.sources.tables.arrow import HeldImages
from visionadapt.sources.tables.contents import SPREADSHEETS
from visionadapt.sources.tables.guessing import guessed_columns, likely_data, pixels_in
from visionadapt.sources.tables.image_folders import MOST_ROWS, best_options, sampled
from visionadapt.sources.tables.paths import FilesAmong, FilesBelow, FilesOfTables, common_folder
from visionadapt.sources.tables.readers import DELIMITERS, SUFFIXES, Format, TableFile
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.tables.several import (
    FILE_SUFFIXES,
    SPLIT,
    files_of,
    folder_of,
    names_several,
    splits_of,
)
from visionadapt.sources.tables.text_files import folder_below
from visionadapt.sources.tabular import TabularSource

_SAMPLE = 100
"""Rows to guess columns from."""
_MOST_TRIED = 20
"""Columns that are tried for names of files."""


@dataclass(frozen=True, repr=False)
class TableSource(FileTable):
    """Images listed in a table: one row per image, a column for the file, others for label, group and split.

    Every row becomes a record, those that cannot be used with the problem and the place of the row: a missing file, a
    path that leaves the folder, a broken row, a dropped label. A file that several rows name counts once, in its first
    row; where they give it different labels, in none.

    Images that a Parquet, Arrow or Feather file holds itself are read a few at a time (of Parquet, a page); quickly in
    the order of their rows, as training does. Columns are named by dotted paths in JSON, and in structures of Parquet
    and Arrow: `data.image` is the field `image` in `data`.

    Class numbers in Parquet and Arrow files become the names that the `datasets` library stores in their metadata, and
    its -1 no label; they stay numbers where `labels` or `drop` names numbers.

    Args:
        path: the table, also in object storage, such as `s3://bucket/labels.csv`, or on the Hugging Face hub, such as
            `hf://datasets/ORG/NAME/metadata.csv`, from where it is downloaded with the files of its folder. CSV and TSV
            in UTF-8 or UTF-16; JSON as a list of objects, or an object in each line. Or several files with the same
            columns, as a list or a pattern such as `*/metadata.csv`; of Parquet and Arrow also a folder of files, such
            as one that the `datasets` library saves. Rows then have the column `split` where files or folders are
            called train or test.
        image: the column with the image's path, relative to `root` or absolute and below it; or with the image's bytes,
            plain or in a structure of `bytes` and `path`.
        {columns}
        key: the column that names the row, unique and always the same, such as `image.path`; by default the path of the
            image names it, or where the table holds the image, its row.
        root: the folder of the images; by default the table's own, and of several CSV, TSV and JSON files, each file's
            own, with keys that are relative to the folder of all. A path that leads out of it from there, such as
            `../images/1.jpg`, is relative to the table's own folder, and must be below the root as well. Or several
            folders, in one of which each path leads to a file. Or a place in object storage, such as
            `s3://bucket/photos`: the column then holds names below it, or URLs of objects there. Or a folder on the
            hub, which is downloaded.
        suffix: ends the names of the images, such as `.jpg`; added to paths without it.
        format: csv, tsv, json, jsonl, parquet or arrow; by default according to the file's suffix.
        delimiter: what separates the cells of a CSV or TSV file; by default a comma or a tab, or what the first line
            shows.
        header: whether the first row of a CSV or TSV file names the columns; if not, they are called `1`, `2`, ….
        max_bytes: larger image files are refused.

    Raises:
        SourceError: the table or the folder is missing, or `format` or `delimiter` is invalid. Missing columns and
            labels, and several files with different columns, are reported when the table is first read.
    """

    path: str | Path | Sequence[str | Path]
    image: str = ""
    label: str | Sequence[str] | None = None
    _: KW_ONLY
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = None
    separator: str | None = None
    merge: bool = False
    key: str | None = None
    root: str | Path | Sequence[str | Path] | None = None
    suffix: str | None = None
    format: Format | None = None
    delimiter: str | None = None
    header: bool = True
    max_bytes: int = 1 << 28

    _takes_several_roots: ClassVar[bool] = True
    _column_options: ClassVar[tuple[str, ...]] = (*TabularSource._column_options, "key")

    def __post_init__(self) -> None:
        downloaded = self._download()
        if not self._paths:
            raise SourceError("path= must name a table, or several")
        paths = [str(object_url(path)) if is_object_url(path) else str(Path(path).expanduser()) for path in self._paths]
        path = Path(paths[0])
        kinds, suffix = get_args(Format), path.suffix.lower()
        roots = several(self.root)
        self._set(
            path=_one_or_all(paths),
            root=_one_or_all([root if "://" in root else str(Path(root).expanduser()) for root in roots]),
            format=self.format or SUFFIXES.get(suffix),
            suffix=text(self.suffix),
            key=text(self.key),
            header=str(self.header).lower() != "none" and flag("header", self.header),
        )
        self._normalize_columns()
        if any(map(is_object_url, paths)):
            self._check_remote()
        else:
            check_tables(self._paths, self.format, self._several)
        if self.format is None and suffix in SPREADSHEETS:
            raise SourceError(f"{path} is a spreadsheet; export it as CSV (UTF-8), and give csv(…)")
        if self.format not in kinds:
            raise SourceError(f"{path}: is it {', '.join(kinds[:-1])} or {kinds[-1]}? name it with format=")
        if self._root_url is not None:
            object_url(self._root_url)
        else:
            check_roots(self._roots)
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.format not in DELIMITERS):
            raise SourceError(f"{path}: delimiter={self.delimiter!r} must be one character, for CSV or TSV")
        if not self.header and self.format not in DELIMITERS:
            raise SourceError(f"{path}: header=false is for CSV or TSV")
        if downloaded and self.root is None and self.format not in DELIMITERS and self._names_files:
            local_path(str(address_of(self._beside)))

    def _download(self) -> bool:
        """Download the table where it is on the hub, with its folder where that may hold the images; likewise `root`.

        Return whether it is there.
        """
        roots = several(self.root)
        if len(roots) == 1 and is_hub_address(roots[0]):
            self._set(root=local_path(roots[0]))
        if not any(map(is_hub_address, self._paths)):
            return False
        alone = not roots
        kept = [fetched_table(path, self.format, alone) if is_hub_address(path) else path for path in self._paths]
        self._set(path=kept)
        return True

    @property
    def _names_files(self) -> bool:
        """Whether the column of images holds their paths."""
        image = self.image.removesuffix(".bytes")
        return self.image in self.columns and image not in self._image_columns()

    def _check_remote(self) -> None:
        """Raise SourceError where a URL cannot be that of a table; the store is not asked."""
        if len(self._paths) > 1 or glob.has_magic(str(self.path)) or "{" in str(self.path):
            raise SourceError(f"{self._title}: of tables in object storage give one file; or copy them here")
        if not object_url(str(self.path)).path:
            raise SourceError(f"{self.path} is a bucket; name a table in it, or give bucket({self.path})")

    @property
    def name(self) -> str:
        """The table's name without its suffix, of several that of their folder, or of the data set on the hub."""
        alone = isinstance(self.path, str)
        return data_set_name(self._paths[0]) or (Path(self._title).stem if alone else self._beside.resolve().name)

    @property
    def _paths(self) -> tuple[str, ...]:
        return several(self.path)

    @cached_property
    def _several(self) -> bool:
        """Whether the table may be in several files."""
        if len(self._paths) != 1:
            return True
        takes = self.format in FILE_SUFFIXES or (self.format is not None and not os.path.isdir(self._paths[0]))  # noqa: PTH112
        return takes and not is_object_url(self._paths[0]) and names_several(self._paths[0])

    @cached_property
    def _table_files(self) -> list[str]:
        """All files, where the table may be in several."""
        return files_of(self._paths, self.format or "") if self._several else []

    @cached_property
    def _own_folders(self) -> tuple[str, ...]:
        """Those of several text files below the folder of all, where images are beside each; none where in only one."""
        if self.root is not None or self.format in FILE_SUFFIXES:
            return ()
        found = tuple(dict.fromkeys(folder_below(Path(file), self._beside) for file in self._table_files))
        return () if found == ("",) else found

    def notes(self) -> Sequence[str]:
        """Return what to know about the labels, and of splits that files tell and nobody asked for."""
        files = self._table_files if self.split is None else []
        found = sorted(splits_of(files))
        told = [f"files of {' and '.join(found)} are used as one set: split={SPLIT} keeps them apart"] if found else []
        return (*super().notes(), *(told if len(found) > 1 else []))

    @property
    def holds_pixels(self) -> bool:
        """Whether the table holds pixels as numbers, as MNIST's and FER's tables do."""
        rows = islice(self._file.rows(), _SAMPLE)
        return pixels_in(self.columns, rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the table but those of bytes; in JSON and structures, with dotted paths of what is in them."""
        return self._file.columns(self._named)

    def __str__(self) -> str:
        return ", ".join(map(shown, self._paths))

    def resolved(self) -> TableSource:
        """Return the same source with absolute paths."""
        root = self.root if self._root_url is not None else [Path(each).absolute() for each in several(self.root)]
        paths = [path if is_object_url(path) else Path(path).absolute() for path in self._paths]
        return dataclasses.replace(self, path=paths, root=root)

    @cached_property
    def _version(self) -> ObjectVersion | None:
        """The object that holds the table, as it was when it was first needed; None for a file."""
        return object_version(str(self.path)) if is_object_url(self.path) else None

    @property
    def _local(self) -> Path:
        """The table, or a local copy of it."""
        return Path(self._paths[0]) if self._version is None else self._version.here()

    @property
    def _root_url(self) -> str | None:
        """Where the images are, if that is in object storage."""
        if self.root is not None:
            return self.root if isinstance(self.root, str) and is_object_url(self.root) else None
        return str(self.path).rpartition("/")[0] if is_object_url(self.path) else None

    @property
    def _key_column(self) -> str | None:
        return self.key

    @property
    def _roots(self) -> tuple[str, ...]:
        """The folders of the images."""
        own = tuple(str(self._beside / folder) for folder in self._own_folders)
        return several(self.root) or own or (str(self._beside),)

    @property
    def _beside(self) -> Path:
        """The table's own folder, or the one of all files."""
        if not self._several:
            return Path(self._paths[0]).parent
        return common_folder([str(folder_of(path)) for path in self._paths])

    @property
    def folders(self) -> tuple[Path, Sequence[str]]:
        """The folder that holds all images, and the folders below it that hold them; empty text for itself."""
        if own := self._own_folders:
            outer = [each for each in own if not any(each != other and _is_below(each, other) for other in own)]
            return self._beside, outer
        above = common_folder(self._roots)
        return above, [os.path.relpath(root, above) if len(self._roots) > 1 else "" for root in self._roots]

    @property
    def reads_ahead(self) -> int:
        """How many images are worth requesting at once."""
        return READS_AHEAD if self._root_url is not None else 0

    def identity_of(self, record: Record) -> str | None:
        """Return a string that no other bytes have had: of an object, a hash of its URL, ETag and size."""
        if self._root_url is None or self._held_images is not None:
            return None
        return self._objects.identity(record.location or record.key)

    @property
    def _files(self) -> FilesBelow | NamedObjects:
        if self._root_url is not None:
            return NamedObjects(self._objects, self.suffix)
        if self._own_folders:
            return self._files_of_tables
        if len(self._roots) > 1:
            return FilesAmong(self._roots, self.max_bytes, self.suffix, self._beside)
        return FilesBelow(self._roots[0], self.max_bytes, self.suffix, self._beside)

    @cached_property
    def _files_of_tables(self) -> FilesOfTables:
        return FilesOfTables(self._beside, self._own_folders, self.max_bytes, self.suffix)

    @cached_property
    def _objects(self) -> Below:
        return Below(str(self._root_url), self.max_bytes)

    @property
    def _file(self) -> TableFile:
        numbers = any(label.strip().lstrip("-").isdecimal() for label in (*self.labels, *self.drop))
        files = tuple(map(Path, self._table_files))
        above = self._beside if files else Path()
        return TableFile(self._local, self.format or "csv", self.delimiter, self.header, numbers, files, above)

    @property
    def _named(self) -> tuple[str, ...]:
        """The columns that arguments name."""
        return tuple(name for option in self._column_options for name in several(getattr(self, option)) if name)

    @property
    def _title(self) -> str:
        return listed(self._paths)

    def _known_columns(self) -> Sequence[str]:
        return self.columns

    def _image_columns(self) -> Sequence[str]:
        return self._file.image_columns

    def _held(self) -> HeldImages | None:
        file, image = self._file, self.image.removesuffix(".bytes")
        return file.images(image) if image in file.image_columns and image not in self.columns else None

    def _table_rows(self) -> Iterator[TableRow]:
        return self._file.rows(self._named)

    def _with(self, options: Mapping[str, Any]) -> str:
        return spec.format(dataclasses.replace(self, **options), "source")

    def _guessed(self, known: Sequence[str]) -> dict[str, Any]:
        none = {name: None for name in ("label", "group", "split") if getattr(self, name) is not None}
        if data := self._guessed_without_header(known):
            return {**none, **data, "header": False, **self._options_to_find({**data, "header": False})}
        options = super()._guessed(known)
        for name in known[:_MOST_TRIED] if "image" not in options else ():
            if found := self._options_to_find({"image": name}):  # its cells name files, whatever it is called
                return {**guessed_columns(known, self._first_rows(), image=name), **found}
        if "image" not in options or options["image"] in self._image_columns():
            return options
        return {**options, **self._options_to_find({"image": options["image"]})}

    def _guessed_without_header(self, known: Sequence[str]) -> dict[str, str]:
        """The columns of a file whose first row is one of data; empty where it names the columns."""
        if not self.header or self.format not in DELIMITERS or not likely_data(known):
            return {}
        return likely_data(known, islice(dataclasses.replace(self._file, header=False).rows(), _SAMPLE))

    def _first_rows(self) -> Sequence[TableRow]:
        return list(islice(self._file.rows(self.columns), _SAMPLE))

    def _options_to_find(self, given: Mapping[str, Any]) -> Mapping[str, object]:
        """The options with which the files of the column `image` are found, which is among those given."""
        file = dataclasses.replace(self._file, header=given.get("header", self.header))
        paths: dict[str, list[str]] = {}
        for row in islice(file.rows([given["image"]]), MOST_ROWS):
            if path := row.only(given["image"]):
                paths.setdefault(row.folder, []).append(path)
        files = self._files
        if isinstance(files, FilesOfTables):
            own = {each: FilesBelow(files.root / each, self.max_bytes, self.suffix) for each in paths}
            found = [best_options(own[folder], sampled(each), False) for folder, each in paths.items()]
            return found[0] if found and all(each == found[0] and "root" not in each for each in found) else {}
        every = [path for each in paths.values() for path in each]
        return best_options(files, sampled(every), True) if isinstance(files, FilesBelow) else {}


def _is_below(folder: str, other: str) -> bool:
    """Whether a folder is another one or below it; both are paths below the same one, which may be empty."""
    return PurePosixPath(folder).is_relative_to(other)


def _one_or_all(roots: Sequence[str]) -> str | tuple[str, ...] | None:
    every = tuple(dict.fromkeys(roots))
    return every if len(every) > 1 else next(iter(every), None)
