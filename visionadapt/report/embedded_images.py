"""Images embedded in the report: read by key, shown as the model sees them, and overlaid with heat maps."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from visionadapt.core.records import Manifest, Record
from visionadapt.errors import ImageError
from visionadapt.images.thumbnails import Thumbnail, thumbnail, visible
from visionadapt.model.heatmaps import heat_maps
from visionadapt.prediction.predictor import Predictor
from visionadapt.sources.opening import RowsLike, source_of
from visionadapt.system.text import utf8_safe

SIDE = 224
"""Longest side of a thumbnail in pixels."""
_BATCH = 8
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)


class ImageReader:
    """Reads images by the keys that a run folder records; only the given `keys` can be read."""

    def __init__(self, rows: RowsLike, keys: Collection[str]) -> None:
        source = source_of(rows)
        self._source = source.source if isinstance(source, Manifest) else source
        named = ((utf8_safe(record.key), record) for record in source)
        self._records: Mapping[str, Record] = {key: record for key, record in named if key in keys}

    def read(self, key: str) -> bytes:
        """Return the bytes of a file; raise ImageError if it is no longer there."""
        if key not in self._records:
            raise ImageError(key, "is no longer in the source")
        return self._source.read(self._records[key])

    def upright_size(self, key: str) -> tuple[int, int] | None:
        """Return height and width of the upright image, from the file's header; None if it cannot be read."""
        try:
            with Image.open(io.BytesIO(self.read(key))) as image:
                turned = image.getexif().get(274, 1) in (5, 6, 7, 8)
                return (image.width, image.height) if turned else (image.height, image.width)
        except (ImageError, OSError, ValueError):
            return None


def heat_map_overlays(predictor: Predictor, images: Sequence[Tensor], classes: Sequence[int]) -> Iterator[Thumbnail]:
    """Yield each image in grey under its heat map for a class; raise BackboneError if the backbone has no heat maps.

    The images are preprocessed, uint8 [C, S, S], before normalisation.
    """
    for start in range(0, len(images), _BATCH):
        batch = torch.stack(list(images[start : start + _BATCH]))
        normalised = predictor.prepare.device(batch.to(predictor.plan.device))
        maps = heat_maps(predictor.classifier, normalised, classes[start : start + _BATCH])
        for image, heat in zip(batch, maps, strict=True):
            yield thumbnail(_overlay(image, heat), SIDE)


def _overlay(image: Tensor, heat: Tensor) -> Image.Image:
    """uint8 [C, H, W] in grey under a map [h, w] in [0, 1], in viridis: violet for 0, yellow for 1."""
    size = (image.shape[1], image.shape[2])
    shown = F.interpolate(heat[None, None], size, mode="bicubic", align_corners=False)[0, 0].clamp(0, 1).numpy()
    blended = 0.45 * np.asarray(visible(image).convert("L"), np.float64)[..., None] + 0.55 * _viridis(shown)
    return Image.fromarray(blended.round().astype(np.uint8))


def _viridis(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """[H, W] in [0, 1] → RGB [H, W, 3] in [0, 255]."""
    stops = np.linspace(0, 1, len(_VIRIDIS))
    return np.stack([np.interp(values, stops, _VIRIDIS[:, channel]) for channel in range(3)], axis=-1)
