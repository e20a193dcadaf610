"""Pictures for the report, as data in the page: thumbnails, heat maps, and what resizing did."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from visionadapt.core.records import Manifest, Record, Source
from visionadapt.errors import ImageError
from visionadapt.images import Preprocessing, ResizeAdapter
from visionadapt.model.heatmaps import heat_maps
from visionadapt.prediction.predictor import Predictor
from visionadapt.system.text import utf8_safe

SIDE = 224
"""Longest side of a thumbnail in pixels."""
_BATCH = 8
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)


class Pictures:
    """Reads the pictures of some files by way of their source.

    Args:
        rows: where they are looked for.
        wanted: their keys, as the run folder has them.
    """

    def __init__(self, rows: Source | Manifest, wanted: frozenset[str]) -> None:
        self._source = rows.source if isinstance(rows, Manifest) else rows
        named = ((utf8_safe(record.key), record) for record in rows)
        self._records: Mapping[str, Record] = {key: record for key, record in named if key in wanted}

    def read(self, file: str) -> bytes:
        """The bytes of one file; raise ImageError where it is no longer there."""
        if file not in self._records:
            raise ImageError(file, "is no longer in the source")
        return self._source.read(self._records[file])


@dataclass(frozen=True)
class Shown:
    """A picture as the model is given it; without it, why.

    Attributes:
        picture, heat: data addresses of the pictures; empty where there is none.
        width, height: of both, in pixels.
        problem: why there is no picture.
    """

    picture: str = ""
    heat: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Resized:
    """What resizing did to one picture.

    Attributes:
        file: its key.
        size: width and height before.
        cut: share of the picture that is cut away, in [0, 1].
        padded: share of the output that is filling, in [0, 1].
        stretched: how many times more one side is scaled than the other; 1 keeps the proportions.
        enlarged: how many times the height is scaled up or down.
    """

    file: str
    size: tuple[int, int]
    cut: float
    padded: float
    stretched: float
    enlarged: float


def show(pictures: Pictures, prepare: Preprocessing, files: Sequence[str]) -> list[tuple[Shown, Tensor | None]]:
    """Each file as the model is given it, with its pixels uint8 [3, S, S]; those that cannot be had say why."""
    shown: list[tuple[Shown, Tensor | None]] = []
    for file in files:
        try:
            pixels = prepare.host(pictures.read(file))
        except ImageError as error:
            shown.append((Shown(problem=error.reason), None))
            continue
        image = _small(_image(pixels))
        shown.append((Shown(data_address(image), "", image.width, image.height), pixels))
    return shown


def heats(predictor: Predictor, pixels: Sequence[Tensor], classes: Sequence[int]) -> Iterator[str]:
    """The data address of each picture's heat map for a class, laid over the picture in grey.

    Raises:
        BackboneError: the backbone has no heat maps.
    """
    for start in range(0, len(pixels), _BATCH):
        batch = torch.stack(list(pixels[start : start + _BATCH]))
        normalised = predictor.prepare.device(batch.to(predictor.plan.device)).contiguous(
            memory_format=torch.channels_last
        )
        maps = heat_maps(predictor.classifier, normalised, classes[start : start + _BATCH])
        for picture, places in zip(batch, maps, strict=True):
            yield data_address(_small(_overlay(picture, places)))


def measure(pictures: Pictures, resize: ResizeAdapter, files: Sequence[str]) -> list[Resized]:
    """What resizing did to each of some files that can still be read."""
    found = []
    for file in files:
        size = _upright_size(pictures, file)
        if size is not None:
            found.append(_measured(file, size, resize))
    return found


def before_after(
    pictures: Pictures, prepare: Preprocessing, file: str
) -> tuple[str, tuple[int, int], str, tuple[int, int]]:
    """A picture as it is and as the model is given it: data address, width and height of either's thumbnail.

    Raises:
        ImageError: it can no longer be read.
    """
    decoded = prepare.decode.decode(pictures.read(file), file).pixels
    before, after = _small(_image(decoded)), _small(_image(prepare.after_decode(decoded)))
    return data_address(before), before.size, data_address(after), after.size


def data_address(image: Image.Image) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _measured(file: str, size: tuple[int, int], resize: ResizeAdapter) -> Resized:
    width, height = size
    full_height, full_width = resize.height_width
    place = resize.placement(height, width)
    seen_height = min(place.top + place.height, full_height) - max(place.top, 0)
    seen_width = min(place.left + place.width, full_width) - max(place.left, 0)
    seen = seen_height * seen_width
    vertical, horizontal = place.height / height, place.width / width
    return Resized(
        file,
        size,
        cut=1 - seen / (place.height * place.width),
        padded=1 - seen / (full_height * full_width),
        stretched=max(vertical, horizontal) / min(vertical, horizontal),
        enlarged=max(vertical, horizontal),
    )


def _upright_size(pictures: Pictures, file: str) -> tuple[int, int] | None:
    """Width and height of the upright picture, from the head of its file."""
    try:
        with Image.open(io.BytesIO(pictures.read(file))) as image:
            lying = image.getexif().get(274, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if lying else (image.width, image.height)
    except (ImageError, OSError, ValueError):
        return None


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def _small(image: Image.Image) -> Image.Image:
    """At most `SIDE` pixels wide and high."""
    image.thumbnail((SIDE, SIDE))
    return image


def _overlay(picture: Tensor, places: Tensor) -> Image.Image:
    """uint8 [3, H, W] in grey under a map [h, w] in [0, 1], in viridis: violet is little, yellow much."""
    size = (picture.shape[1], picture.shape[2])
    heat = F.interpolate(places[None, None], size, mode="bicubic", align_corners=False)[0, 0].clamp(0, 1).numpy()
    grey = np.asarray(_image(picture).convert("L"), np.float64)[..., None]
    blended = 0.45 * grey + 0.55 * _viridis(heat)
    return Image.fromarray(blended.round().astype(np.uint8))


def _viridis(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """[H, W] in [0, 1] → RGB [H, W, 3] in [0, 255]."""
    stops = np.linspace(0, 1, len(_VIRIDIS))
    return np.stack([np.interp(values, stops, _VIRIDIS[:, channel]) for channel in range(3)], axis=-1)


def evenly(files: Sequence[str], most: int) -> list[str]:
    """At most `most` of some files, evenly spaced."""
    step = max(1, -(-len(files) // most))
    return list(files[::step])
