"""`ShardSource`: images in tar and zip archives, local or in object storage, read where they are stored."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

from visionadapt.core.naming import natural_key
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.archives.files import ArchiveFile, LocalArchive, RemoteArchive
from visionadapt.sources.archives.index import Index
from visionadapt.sources.archives.patterns import SUFFIXES, check_kind, is_archive, is_compressed, local_archives
from visionadapt.sources.arguments import several
from visionadapt.sources.braces import expanded
from visionadapt.sources.hub import HubAddress, HubFiles, data_set_name, hub_files, is_hub_address, shown
from visionadapt.sources.objects.below import READS_AHEAD
from visionadapt.sources.objects.store import Bucket
from visionadapt.sources.objects.urls import ObjectUrl, is_object_url, object_url
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.tabular import TabularSource
from visionadapt.sources.walk import Found, is_image
from visionadapt.system.text import counted


@dataclass(frozen=True, repr=False)
class ShardSource(TabularSource):
    """Images in archives: tar files, also in the WebDataset layout, and zip files.

    One row per image, in the order in which the archives store them, so that reading them in order reads each archive
    once from its beginning to its end. Nothing is unpacked. A row's key is its member's name; where another archive
    has the name already, with the archive's name before it. Each row has the columns `shard` (the archive), `image`,
    `key` (the name up to the first dot), `folder` (the last one of the name), `split` (where the archive, or the first
    folder that not all images share, is called train, val or test; or the last folder, such as `cat/train`), what lies
    beside the image as `.cls`, `.txt` and `.json` (`json.NAME` for what is in it), and `label`: that of `.cls`, or else
    the folder.

    Links, devices, encrypted members, names that lead out of the archive, and the rest of an archive that is cut off
    are rows with a problem.

    Args:
        path: an archive, several, a folder of them, or a pattern such as `shards-{000..011}.tar` or `shards-*.tar`;
            also below `s3://bucket`, where `*` is not known, and below `hf://datasets/ORG/NAME`, from where they are
            downloaded.
        {columns}
        max_bytes: larger images are refused.

    Raises:
        SourceError: there is no such archive, or it is compressed as a whole.
    """

    path: str | Sequence[str]
    label: str | Sequence[str] | None = "label"
    _: KW_ONLY
    image: str = "image"
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drop: Sequence[str] = ()
    group: str | None = None
    split: str | None = "split"
    separator: str | None = None
    merge: bool = False
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        paths = tuple(_downloaded(path) if is_hub_address(path) else path for path in several(self.path))
        self._set(path=paths[0] if len(paths) == 1 else paths)
        self._normalize_columns()
        if not paths:
            raise SourceError("shards: name an archive, a folder of archives, or a pattern")
        for path in paths:
            if is_object_url(path):
                object_url(path)
            else:
                local_archives(path)

    @property
    def name(self) -> str:
        """The first archive's name without suffix and braces, or that of the data set on the hub."""
        if (known := data_set_name(several(self.path)[0])) is not None:
            return known
        first = several(self.path)[0].rstrip("/").rpartition("/")[2]
        return first.partition(".")[0].partition("{")[0].rstrip("-_*") or "shards"

    def __str__(self) -> str:
        return ", ".join(map(shown, several(self.path)))

    def resolved(self) -> ShardSource:
        """Return the same source with absolute paths."""
        paths = [path if is_object_url(path) else os.path.abspath(path) for path in several(self.path)]  # noqa: PTH100
        return dataclasses.replace(self, path=tuple(paths))

    @property
    def reads_ahead(self) -> int:
        """How many images are worth requesting at once."""
        return READS_AHEAD if any(map(is_object_url, several(self.path))) else 0

    def read(self, record: Record) -> bytes:
        """Return the image's bytes; raise ImageError where its member is too large, cut off or damaged."""
        return self._index.read(self._number(record), record.key, self.max_bytes)

    def version_of(self, record: Record) -> str | None:
        """Return what changes when the row's archive does, and the member's place."""
        return self._index.version(self._number(record)) if record.problem is None else None

    def identity_of(self, record: Record) -> str | None:
        """Return a string that no other bytes have had: a hash of an object's URL, ETag and the member's place."""
        identity = self._index.identity(self._number(record)) if record.problem is None else None
        return None if identity is None else hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()

    def notes(self) -> Sequence[str]:
        """Return what to know about labels, and which members were left out."""
        ignored = self._index.ignored
        kinds = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in ignored.most_common())
        what = counted(ignored.total(), "member that is no image", "members that are no images")
        told = [f"ignored {what}: {kinds}"] if ignored else []
        inner = next((folders.inner for folders in self._index.folders if folders.inner), None)
        if self.label == "label" and inner is not None:
            told.append(
                f"the class is the last folder: images in {inner[0]} are of class {inner[0].rpartition('/')[2]}, not "
                f"{inner[1]}; where that is wrong, unpack the archive and give its folder"
            )
        return (*super().notes(), *told)

    def _number(self, record: Record) -> int:
        location = record.location or ""
        if not location.isdecimal() or int(location) >= len(self._index):
            raise ImageError(record.key, "is in no archive")
        return int(location)

    @property
    def _title(self) -> str:
        return str(self)

    def _known_columns(self) -> Sequence[str]:
        return tuple(self._index.columns)

    def _with(self, options: Mapping[str, Any]) -> str:
        return ", ".join(f"{name}={value}" for name, value in options.items())

    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        for number, row in enumerate(self._index.rows()):
            yield row.key, TableRow(row.place, row.cells), Found(str(number), row.problem)

    @cached_property
    def _index(self) -> Index:
        """The images of all archives, listed once."""
        archives = list(dict(found for path in several(self.path) for found in _archives(path)).items())
        index = Index(archives)
        if not len(index):
            raise SourceError(f"{self._title}: there are no images in {counted(len(archives), 'archive')}")
        unclear = next((folders.unclear for folders in index.folders if folders.unclear), None)
        if self.split == "split" and unclear is not None:
            raise SourceError(
                f"{self._title}: the folder {unclear} is named like a split, but lies below folders that differ; "
                "unpack the archive and give its folder, or name the column of the split with split="
            )
        return index


def folders_of_archives(found: HubFiles) -> list[HubAddress]:
    """Return the folders of a data set on the hub that hold archives, where it has no images beside them; else none."""
    names = [name for name in found.names if is_archive(name) or is_compressed(name)]
    if found.is_file or any(map(is_image, found.names)):
        return []
    above = {name.rpartition("/")[0] for name in names}
    return [found.address.below(folder) for folder in sorted(above, key=natural_key)]


def _downloaded(path: str) -> str:
    """Return where on disk the archives are that an address on the hub means."""
    found = hub_files(path)
    inside = [] if found.is_file or found.is_pattern else [name for name in found.names if "/" not in name]
    for name in [path] if found.is_file else filter(is_compressed, inside):
        check_kind(name)
    if inside and not any(map(is_archive, inside)):
        raise SourceError(f"{path}: there is no .tar and no .zip file in this folder; name one that has some")
    return found.fetched(SUFFIXES)


def _archives(path: str) -> Iterator[tuple[str, ArchiveFile]]:
    if not is_object_url(path):
        yield from ((name, LocalArchive(name)) for name in local_archives(path))
        return
    bucket = Bucket(object_url(path).bucket)
    if is_archive(path):
        names = [object_url(name).path for name in expanded(path)]
        listed = [bucket.head(name, f"{bucket.url}/{name}") for name in names]
    else:
        inside = (item for item in bucket.listed(object_url(path).path) if is_archive(item.path))
        listed = sorted(inside, key=lambda item: natural_key(item.path))
        if not listed:
            raise SourceError(f"{path}: there is no .tar and no .zip object")
    for item in listed:
        url = ObjectUrl(bucket.url, item.path)
        check_kind(str(url))
        yield str(url), RemoteArchive(bucket, url, item.size, item.etag)
