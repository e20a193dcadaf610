"""Whatever `Predictor` accepts as images, read and resized one by one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding, ImageDataset
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


def read_images(images: Any, prepare: Preprocessing, strict: bool = False) -> Iterator[Input]:
    """Read a single image; or several: a folder, a source or manifest, or any iterable of single images.

    Raises:
        ImageError: a single image cannot be used; or one of several, where `strict` is set.
    """
    rows: Iterable[Input]
    if is_single(images):
        rows = [Input(_file(images), prepare.host(images))]
    elif isinstance(images, (str, Path)):
        rows = read_rows(manifest_of(FileSource(images)), prepare)
    elif isinstance(images, Manifest) or (hasattr(images, "classes") and hasattr(images, "read")):
        rows = read_rows(manifest_of(images), prepare)
    else:
        rows = (_read(image, prepare) for image in images)
    for index, row in enumerate(rows):
        if strict and row.problem is not None:
            raise ImageError(row.file or f"images[{index}]", row.problem)
        yield row


def read_rows(manifest: Manifest, prepare: Preprocessing, workers: int = 0, start: int = 0) -> Iterator[Input]:
    """Read the rows of a manifest in order, from row `start`; `workers` processes read ahead."""
    dataset = ImageDataset(manifest, prepare, Augmentation("none"))
    for sample in samples(dataset, workers, range(start, len(manifest))):
        finding = sample.finding
        pixels = None if sample.pixels is None else sample.pixels[0]
        yield Input(manifest.key(finding.index), pixels, finding.problem, finding)


def _read(image: Any, prepare: Preprocessing) -> Input:
    try:
        return Input(_file(image), prepare.host(image))
    except ImageError as error:
        return Input(_file(image), None, error.reason)


def _file(image: Any) -> str:
    return str(image) if isinstance(image, (str, Path)) else ""
