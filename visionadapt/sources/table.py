"""`TableSource`: images and labels listed in a CSV, TSV, JSON, JSON Lines, Parquet or Arrow file."""

from __future__ import annotations

import dataclasses
import glob
import stat
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, get_args

from visionadapt.core import spec
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import flag, mode_of, several, text
from visionadapt.sources.hub import address_of, data_set_name, hub_files, is_hub_address, local_path, shown
from visionadapt.sources.keys import plain_key
from visionadapt.sources.objects.below import READS_AHEAD, Below
from visionadapt.sources.objects.copies import ObjectVersion, object_version
from visionadapt.sources.objects.named import NamedObjects
from visionadapt.sources.objects.urls import is_object_url, object_url
from visionadapt.sources.tables.arrow import HeldImages
from visionadapt.sources.tables.cells import NO_MARK
from visionadapt.sources.tables.contents import SPREADSHEETS
from visionadapt.sources.tables.guessing import likely_data
from visionadapt.sources.tables.near_misses import near_miss
from visionadapt.sources.tables.paths import LEAVES, URL, FilesBelow
from visionadapt.sources.tables.readers import DELIMITERS, SUFFIXES, Format, TableFile
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.tables.several import (
    FILE_SUFFIXES,
    SPLIT,
    check_one_set,
    folder_of,
    names_several,
    splits_of,
    table_files,
)
from visionadapt.sources.tabular import TabularSource
from visionadapt.sources.walk import Found
from visionadapt.system.storage import MISSING

_SAMPLE = 100
"""Rows to guess columns from."""


class FileTable(TabularSource):
    """Base of sources whose rows name files, or hold images."""

    @property
    @abstractmethod
    def _files(self) -> FilesBelow | NamedObjects:
        """The files or objects that a row can name."""

    @abstractmethod
    def _table_rows(self) -> Iterator[TableRow]:
        """Yield the rows of the table."""

    @abstractmethod
    def _held(self) -> HeldImages | None:
        """Return what reads the images that the column `image` holds; None where it names files."""

    def read(self, record: Record) -> bytes:
        """Return the image's bytes; raise ImageError where it is gone, leaves the folder, is no file or too large."""
        location = record.location or record.key
        if self._held_images is None:
            return self._files.read(location, record.key)
        if not location.isdecimal():
            raise ImageError(record.key, "is no row of this table")
        return self._held_images.read(int(location), record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """Return the file's size and times as a string, without reading it; None for images in the table itself."""
        return self._files.version(record.location or record.key) if self._held_images is None else None

    @property
    def _key_column(self) -> str | None:
        """The column that names the row; None where its file does."""
        return None

    @property
    def holds_images(self) -> bool:
        """Whether the table holds the images themselves, rather than their paths."""
        return self._held_images is not None

    def advice(self, record: Record) -> str | None:
        """Return what to change so that a row can be used, such as the option that finds its file; None if unknown."""
        problem = record.problem or ""
        if NO_MARK in problem:
            return "a list of columns is one class each; for one with names give label=COLUMN"
        if self._held_images is not None or not problem.startswith((MISSING, LEAVES, URL)):
            return None
        rows = (row.only(self.image) for key, row, _ in self._rows(look=False) if key == record.key)
        named, files = next(rows, None) or record.key, self._files
        if is_object_url(named):
            return f"give root={object_url(named).bucket} to read this bucket, or download the images"
        miss = near_miss(files, named) if isinstance(files, FilesBelow) else None
        return None if miss is None else str(miss)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_held_images"}

    @cached_property
    def _held_images(self) -> HeldImages | None:
        return self._held()

    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        """Every row under the key of its file; where it names none, or holds its image, under its own place."""
        files, title, held = self._files, Path(self._title).name, self._held_images
        for number, row in enumerate(self._table_rows(), 1):
            own = plain_key(row.only(self._key_column) or "")
            if held is not None:
                name = plain_key(row.only(held.path_column) or "")
                yield own or (f"{row.place}/{name}" if name else row.place), row, Found(str(number))
            else:
                path = row.only(self.image) or ""
                several = not path and len(row.cells.get(self.image, ())) > 1
                found = Found("", "names several images") if several else files.find(path) if look else Found(path)
                yield own or files.key(path) or f"{title}, {row.place}", row, found


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
            in UTF-8 or UTF-16; JSON as a list of objects, or an object in each line. Of Parquet and Arrow also a folder
            of files, such as one that the `datasets` library saves, or a pattern such as `train-*.parquet`; rows then
            have the column `split` where files or folders are called train or test.
        image: the column with the image's path, relative to `root` or absolute and below it; or with the image's bytes,
            plain or in a structure of `bytes` and `path`.
        {columns}
        key: the column that names the row, unique and always the same, such as `image.path`; by default the path of the
            image names it, or where the table holds the image, its row.
        root: the folder of the images; by default the table's own. A path that leads out of it from there, such as
            `../images/1.jpg`, is relative to the table's own folder, and must be below the root as well. Or a place in
            object storage, such as `s3://bucket/photos`: the column then holds names below it, or URLs of objects
            there. Or a folder on the hub, which is downloaded.
        suffix: ends the names of the images, such as `.jpg`; added to paths without it.
        format: csv, tsv, json, jsonl, parquet or arrow; by default according to the file's suffix.
        delimiter: what separates the cells of a CSV or TSV file; by default a comma or a tab, or what the first line
            shows.
        header: whether the first row of a CSV or TSV file names the columns; if not, they are called `1`, `2`, ….
        max_bytes: larger image files are refused.

    Raises:
        SourceError: the table or the folder is missing, or `format` or `delimiter` is invalid. Missing columns and
            labels are reported when the table is first read.
    """

    path: str | Path
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
    root: str | Path | None = None
    suffix: str | None = None
    format: Format | None = None
    delimiter: str | None = None
    header: bool = True
    max_bytes: int = 1 << 28

    _column_options: ClassVar[tuple[str, ...]] = (*TabularSource._column_options, "key")

    def __post_init__(self) -> None:
        downloaded = self._download()
        remote, root = is_object_url(self.path), text(self.root)
        path = Path(str(self.path)).expanduser()
        kinds, suffix = get_args(Format), path.suffix.lower()
        self._set(
            path=str(object_url(str(self.path))) if remote else str(path),
            root=root if root is None or is_object_url(root) else str(Path(root).expanduser()),
            format=self.format or SUFFIXES.get(suffix),
            suffix=text(self.suffix),
            key=text(self.key),
            header=str(self.header).lower() != "none" and flag("header", self.header),
        )
        self._normalize_columns()
        if remote:
            self._check_remote()
        else:
            self._check_path(path)
        if self.format is None and suffix in SPREADSHEETS:
            raise SourceError(f"{path} is a spreadsheet; export it as CSV (UTF-8), and give csv(…)")
        if self.format not in kinds:
            raise SourceError(f"{path}: is it {', '.join(kinds[:-1])} or {kinds[-1]}? name it with format=")
        if self._root_url is not None:
            object_url(self._root_url)
        elif not stat.S_ISDIR(mode_of("folder", self._root)):
            raise SourceError(f"root={self._root} is no folder")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.format not in DELIMITERS):
            raise SourceError(f"{path}: delimiter={self.delimiter!r} must be one character, for CSV or TSV")
        if not self.header and self.format not in DELIMITERS:
            raise SourceError(f"{path}: header=false is for CSV or TSV")
        if downloaded and self.root is None and self.format not in DELIMITERS and self._names_files:
            local_path(str(address_of(self._root)))

    def _download(self) -> bool:
        """Download the table where it is on the hub, with its folder where that may hold the images; likewise `root`.

        Return whether it is there.
        """
        root, path = text(self.root), str(self.path)
        if root is not None and is_hub_address(root):
            self._set(root=local_path(root))
        if not is_hub_address(path):
            return False
        found = hub_files(path)
        kind = self.format or SUFFIXES.get(PurePosixPath(path).suffix.lower())
        suffixes = FILE_SUFFIXES.get(kind or "", ())
        if not found.is_file and not suffixes:
            raise SourceError(f"{path} is no table; name a file in it, such as {found.address}/metadata.csv")
        if suffixes and not found.is_file and not found.is_pattern:
            check_one_set(path, [name for name in found.names if name.lower().endswith(suffixes)])
        if not suffixes and root is None:
            dataclasses.replace(found, address=found.address.above()).fetched()
        self._set(path=found.fetched(suffixes))
        return True

    @property
    def _names_files(self) -> bool:
        """Whether the column of images holds their paths."""
        image = self.image.removesuffix(".bytes")
        return self.image in self.columns and image not in self._image_columns()

    def _check_remote(self) -> None:
        """Raise SourceError where a URL cannot be that of a table; the store is not asked."""
        if glob.has_magic(str(self.path)) or "{" in str(self.path):
            raise SourceError(f"{self.path}: of tables in object storage give one file; or copy them here")
        if not object_url(str(self.path)).path:
            raise SourceError(f"{self.path} is a bucket; name a table in it, or give bucket({self.path})")

    def _check_path(self, path: Path) -> None:
        """Raise SourceError where there is no table."""
        if self._several:
            for file in (files := table_files(str(path), self.format or "")):
                mode_of("table", file)
            if path.is_dir():
                check_one_set(shown(path), [Path(file).relative_to(path).as_posix() for file in files])
            if not files:
                raise SourceError(f"{path}: there is no {self.format} file; name one, or the folder that holds them")
        elif not stat.S_ISREG(mode_of("table", path)):
            raise SourceError(f"{path} is no regular file")

    @property
    def name(self) -> str:
        """The table's name without its suffix, or that of the data set on the hub."""
        return data_set_name(self.path) or Path(self.path).stem

    @property
    def _several(self) -> bool:
        """Whether the table is in several files."""
        return not is_object_url(self.path) and self.format in {"parquet", "arrow"} and names_several(str(self.path))

    def notes(self) -> Sequence[str]:
        """Return what to know about the labels, and of splits that files tell and nobody asked for."""
        files = table_files(str(self.path), self.format or "") if self._several and self.split is None else []
        found = sorted(splits_of(files))
        told = [f"files of {' and '.join(found)} are used as one set: split={SPLIT} keeps them apart"] if found else []
        return (*super().notes(), *(told if len(found) > 1 else []))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the table but those of bytes; in JSON and structures, with dotted paths of what is in them."""
        return self._file.columns(self._named)

    def __str__(self) -> str:
        return shown(self.path)

    def resolved(self) -> TableSource:
        """Return the same source with absolute paths."""
        root = self.root if self.root is None or is_object_url(self.root) else Path(self.root).absolute()
        path = self.path if is_object_url(self.path) else Path(self.path).absolute()
        return dataclasses.replace(self, path=path, root=root)

    @cached_property
    def _version(self) -> ObjectVersion | None:
        """The object that holds the table, as it was when it was first needed; None for a file."""
        return object_version(str(self.path)) if is_object_url(self.path) else None

    @property
    def _local(self) -> Path:
        """The table, or a local copy of it."""
        return Path(self.path) if self._version is None else self._version.here()

    @property
    def _root_url(self) -> str | None:
        """Where the images are, if that is in object storage."""
        if self.root is not None:
            return str(self.root) if is_object_url(self.root) else None
        return str(self.path).rpartition("/")[0] if is_object_url(self.path) else None

    @property
    def _key_column(self) -> str | None:
        return self.key

    @property
    def _root(self) -> Path:
        if self.root is not None:
            return Path(self.root)
        return folder_of(str(self.path)) if self._several else Path(self.path).parent

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
        beside = folder_of(str(self.path)) if self._several else Path(self.path).parent
        return FilesBelow(self._root, self.max_bytes, self.suffix, beside)

    @cached_property
    def _objects(self) -> Below:
        return Below(str(self._root_url), self.max_bytes)

    @property
    def _file(self) -> TableFile:
        numbers = any(label.strip().lstrip("-").isdecimal() for label in (*self.labels, *self.drop))
        return TableFile(self._local, self.format or "csv", self.delimiter, self.header, numbers)

    @property
    def _named(self) -> tuple[str, ...]:
        """The columns that arguments name."""
        return tuple(name for option in self._column_options for name in several(getattr(self, option)) if name)

    @property
    def _title(self) -> str:
        return str(self.path)

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
        data = likely_data(known) if self.header and self.format in DELIMITERS else {}
        none = dict.fromkeys(("label", "group", "split"))
        if data:
            return {**none, **data, "header": False, **self._options_to_find(known[int(data["image"]) - 1])}
        options = super()._guessed(known)
        paths = (row.only(options.get("image")) for row in self._first_rows())
        path = None if options.get("image") in self._image_columns() else next(filter(None, paths), None)
        return {**options, **self._options_to_find(path)}

    def _first_rows(self) -> Sequence[TableRow]:
        return list(islice(self._file.rows(self.columns), _SAMPLE))

    def _options_to_find(self, path: str | None) -> Mapping[str, str]:
        files = self._files
        miss = near_miss(files, path) if path is not None and isinstance(files, FilesBelow) else None
        return {} if miss is None else miss.options
