"""Golden images of an export: files, and what the library computes for them at every stage."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from visionadapt.errors import ImageError
from visionadapt.images import Preprocessing
from visionadapt.prediction.predictor import Predictor

Array = NDArray[Any]


@dataclass(frozen=True)
class GoldenFile:
    """An image file of the training, or a generated one: its name there, its bytes, and a suffix for them."""

    name: str
    data: bytes
    suffix: str


def golden_files(predictor: Predictor) -> list[GoldenFile]:
    """Return the golden images of a run, and two generated ones that every step of a resize policy changes."""
    found = [GoldenFile(image.name, image.data, _suffix(image.data)) for image in predictor.golden]
    for file in (GoldenFile("generated, wide", _generated(480, 640, 1), ".png"), _turned()):
        with suppress(ImageError):  # it has not the bands that the run reads
            predictor.prepare.host(file.data)
            found.append(file)
    return found


def reference(predictor: Predictor) -> Predictor:
    """Return a predictor that computes everything in float32, with the backbone itself."""
    model, plan = predictor.classifier, predictor.plan
    exact = dataclasses.replace(plan, engine="eager", precision="float32", prefix_precision="float32", device="cpu")
    model.to("cpu")
    return dataclasses.replace(predictor, pipeline=dataclasses.replace(predictor.pipeline, plan=exact))


def expected(predictor: Predictor, files: Iterable[bytes]) -> dict[str, Array]:
    """Return what a predictor computes for image files at every stage, by name, N images first.

    Raises:
        ImageError: a file cannot be read.
    """
    prepare, calibration = predictor.prepare, predictor.calibration
    resized = torch.stack([prepare.host(data) for data in files])
    features, logits = predictor.pipeline.outputs(resized)
    probabilities = calibration.probabilities(logits)
    best, chosen = probabilities.max(1)
    stages = {
        "resized": resized,
        "prepared": prepare.device(resized),
        "features": features,
        "logits": logits,
        "probabilities": probabilities.float(),
        "class_index": chosen,
        "abstain": best < calibration.threshold,
        "distance": calibration.distances(features).float(),
    }
    return {name: tensor.numpy() for name, tensor in stages.items()}


def decoded(prepare: Preprocessing, data: bytes) -> Array:
    """Return an image file's pixels as the library decodes them, uint8 [H, W, C].

    Raises:
        ImageError: it cannot be read.
    """
    return np.ascontiguousarray(prepare.decoded(data).pixels.permute(1, 2, 0).numpy())


def decoded_by_pillow(data: bytes, channels: int = 3) -> Array:
    """Return an image file's pixels as the example decodes them, with Pillow alone: uint8 [H, W, C], C 1 or 3."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _suffix(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return f".{(image.format or 'image').lower()}"


def _generated(height: int, width: int, seed: int) -> bytes:
    """Return a PNG of coloured squares and fine stripes: it shows cropping, stretching, aliasing and channel order."""
    squares = np.random.default_rng(seed).integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    pixels = squares.repeat(40, 0).repeat(40, 1)
    pixels[::3, : width // 2] //= 4
    pixels[: height // 2, ::3, :2] //= 4
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _turned() -> GoldenFile:
    """Return a wide JPEG that its EXIF orientation turns upright."""
    with Image.open(io.BytesIO(_generated(320, 800, 2))) as image:
        exif, file = image.getexif(), io.BytesIO()
        exif[0x0112] = 6
        image.save(file, "JPEG", quality=90, exif=exif)
    return GoldenFile("generated, turned", file.getvalue(), ".jpg")
