"""Write a pulled manifest as tar archives in the WebDataset layout, each of at most so many bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from visionadapt.core.records import Manifest, Record
from visionadapt.errors import ImageError
from visionadapt.sources import ManifestSource
from visionadapt.sources.archives.index import sample_name
from visionadapt.sources.objects.copies import put
from visionadapt.sources.objects.urls import object_url
from visionadapt.system.storage import replacing_folder

FOLDER = "shards"
_WHOLE = "part"
"""What archives are called whose rows have no split."""


@dataclass(frozen=True)
class Written:
    """How many archives and images were written, and how many rows have no bytes and are left out."""

    archives: int
    images: int
    left_out: int


def write_shards(manifest: str | Path, most_bytes: int) -> Written:
    """Write the images of a pulled manifest into archives in its folder `shards`, which is replaced as a whole.

    The archives of each split are called `train-000000.tar` and so on, in the order of the rows. An image's member has
    the row's key as its name; beside it are its class as `.cls`, where it has one, and its labels, group and columns as
    `.json`. The same rows give the same bytes.

    Args:
        manifest: the folder that `pull` has written.
        most_bytes: an archive is ended before it would grow larger, unless a single image does.
    """
    source = ManifestSource(manifest)
    with replacing_folder(Path(manifest) / FOLDER) as folder, ExitStack() as opened:
        folder.mkdir()
        writers: dict[str, _Writer] = {}
        images = left_out = 0
        for record, data in _rows(source.manifest()):
            if data is None:
                left_out += 1
                continue
            name = record.split or _WHOLE
            if name not in writers:
                writers[name] = _Writer(folder, name, most_bytes)
                opened.callback(writers[name].close)
            writers[name].add(record, data)
            images += 1
    return Written(sum(writer.number for writer in writers.values()), images, left_out)


def put_shards(manifest: str | Path, url: str) -> None:
    """Store the archives that `write_shards` has written as objects below a URL such as `s3://bucket/shards`.

    Raises:
        RunError: one cannot be stored; those before it are.
    """
    place = object_url(url)
    for path in sorted((Path(manifest) / FOLDER).iterdir()):
        put(path, f"{place}/{path.name}")


def _rows(manifest: Manifest) -> Iterator[tuple[Record, bytes | None]]:
    for record in manifest:
        try:
            yield record, manifest.source.read(record) if record.problem is None else None
        except ImageError:
            yield record, None


@dataclass
class _Writer:
    """Writes the archives of a split, one after another."""

    folder: Path
    name: str
    most_bytes: int
    number: int = 0
    file: BinaryIO | None = None
    tar: tarfile.TarFile | None = field(default=None, repr=False)

    def add(self, record: Record, data: bytes) -> None:
        """Add an image and what is known of it, in this archive or the next one."""
        members = [(f"{sample_name(record.key)}{suffix}", text) for suffix, text in _texts(record)]
        members.append((record.key, data))
        grown = sum(2 * tarfile.BLOCKSIZE + len(each) for _, each in members)
        if self.tar is None or (self.tar.offset > 0 and self.tar.offset + grown > self.most_bytes):
            self._next()
        assert self.tar is not None
        for name, each in members:
            info = tarfile.TarInfo(name)
            info.size = len(each)
            self.tar.addfile(info, io.BytesIO(each))
        vars(self.tar)["members"].clear()  # which would keep every header

    def _next(self) -> None:
        self.close()
        self.file = (self.folder / f"{self.name}-{self.number:06d}.tar").open("xb")
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self.number += 1

    def close(self) -> None:
        """End the present archive."""
        if self.tar is not None and self.file is not None:
            self.tar.close()
            self.file.close()
            self.tar = self.file = None


def _texts(record: Record) -> Iterator[tuple[str, bytes]]:
    if len(record.labels) == 1:
        yield ".cls", record.labels[0].encode("utf-8", "backslashreplace")
    known = {"labels": list(record.labels), "group": record.group, "split": record.split, **record.columns}
    yield ".json", json.dumps({name: value for name, value in known.items() if value}, ensure_ascii=True).encode()
