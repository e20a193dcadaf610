"""Whatever `Predictor` accepts as images, read and resized one by one."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding, ImageDataset, Rows
from visionadapt.data.loading import samples
from visionadapt.errors import ImageError
from visionadapt.images import Augmentation, Preprocessing
from visionadapt.sources import FileSource
from visionadapt.sources.opening import manifest_of


class Input(NamedTuple):
    """One image: its file or key (empty where it has none), and pixels uint8 [3, S, S] or why it could not be used.

    `finding` is the result of reading it, where it is the row of a manifest.
    """

    file: str
    pixels: Tensor | None
    problem: str | None = None
    finding: Finding | None = None


def is_single(images: Any) -> bool:
    """Whether `images` is a single image: a file's path or bytes, a PIL image, an array or tensor of 2 or 3 axes."""
    if isinstance(images, (str, Path)):
        return not os.path.isdir(images)  # noqa: PTH112 - a Path refuses some strings
    if isinstance(images, (np.ndarray, Tensor)):
        return images.ndim < 4
    one = isinstance(images, (bytes, bytearray, memoryview, Image.Image, io.IOBase))
    return one or not isinstance(images, Iterable)


def read_images(images: Any, prepare: Preprocessing, strict: bool = False) -> tuple[Iterator[Input], int | None]:
    """Read a single image; or several: a folder, a source or manifest, or any iterable of single images.

    Return them one after another, and how many there are; None if that is not known beforehand. Iterating raises an
    ImageError if a single image cannot be used; or one of several, where `strict` is set.
    """
    rows, count = _rows(images, prepare)
    return _checked(rows) if strict else rows, count


def _rows(images: Any, prepare: Preprocessing) -> tuple[Iterator[Input], int | None]:
    if is_single(images):
        return (Input(_file(image), prepare.host(image)) for image in (images,)), 1
    if isinstance(images, (str, Path)):
        images = FileSource(images)
    if isinstance(images, Manifest) or (hasattr(images, "classes") and hasattr(images, "read")):
        manifest = manifest_of(images)
        return read_rows(manifest, prepare), len(manifest)
    if isinstance(images, (list, tuple)):
        return samples(_Images(images, prepare)), len(images)
    count = len(images) if isinstance(images, Sized) else None
    return (_read(image, prepare) for image in images), count


def _checked(rows: Iterator[Input]) -> Iterator[Input]:
    for index, row in enumerate(rows):
        if row.problem is not None:
            raise ImageError(row.file or f"images[{index}]", row.problem)
        yield row


@dataclass(frozen=True)
class _Images(Rows[Input]):
    """Single images of any kind; files are decoded in threads."""

    images: Sequence[Any]
    prepare: Preprocessing

    def __len__(self) -> int:
        return len(self.images)

    def opened(self, index: int) -> Callable[[], Input]:
        """Read a file, and return a function that decodes it; other images are complete at once."""
        image, decode = self.images[index], self.prepare.decode
        try:
            data = decode.read(image) if isinstance(image, (str, Path)) else image
        except ImageError as error:
            return partial(Input, _file(image), None, error.reason)
        if isinstance(data, bytes):
            return partial(_read, data, self.prepare, _file(image))
        return partial(Input, *_read(data, self.prepare))


def read_rows(manifest: Manifest, prepare: Preprocessing, workers: int = 0, start: int = 0) -> Iterator[Input]:
    """Read the rows of a manifest in order, from row `start`; `workers` processes read ahead."""
    dataset = ImageDataset(manifest, prepare, Augmentation("none"))
    for sample in samples(dataset, workers, range(start, len(manifest))):
        finding = sample.finding
        pixels = None if sample.pixels is None else sample.pixels[0]
        yield Input(manifest.key(finding.index), pixels, finding.problem, finding)


def _read(image: Any, prepare: Preprocessing, file: str = "") -> Input:
    try:
        return Input(file or _file(image), prepare.host(image))
    except ImageError as error:
        return Input(file or _file(image), None, error.reason)


def _file(image: Any) -> str:
    return str(image) if isinstance(image, (str, Path)) else ""
