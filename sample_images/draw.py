"""Draw the sample pictures: `python sample_images/draw.py [FOLDER]` writes the same files each time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from paint import Look, make_looks, paint_picture
from PIL import Image
from shapes import SHAPES, Part

SEED = 4
ORIENTATION = 0x0112
Encode = Callable[[Image.Image, Path], None]

# What undoes each EXIF orientation's turn: a picture stored so, shown as the tag says, is upright again.
STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Carrier:
    """One of the files that each class has: its name, the upright size, and how it is written."""

    name: str
    size: tuple[int, int]
    encode: Encode
    opaque: bool = True


def jpeg(quality: int, mode: str = "RGB") -> Encode:
    """A JPEG of that quality in mode RGB, L or CMYK."""
    return lambda image, path: image.convert("RGB").convert(mode).save(path, quality=quality)


def turned_jpeg(orientation: int) -> Encode:
    """A JPEG stored turned, with the EXIF orientation that sets it upright."""

    def encode(image: Image.Image, path: Path) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image.convert("RGB").transpose(STORED_AS[orientation]).save(path, quality=80, exif=exif)

    return encode


def lossless(mode: str, **options: Any) -> Encode:
    """A file in the format of its extension and in the mode."""
    return lambda image, path: image.convert(mode).save(path, **options)


def paletted(image: Image.Image, path: Path) -> None:
    """A file of 64 colours."""
    image.convert("RGB").quantize(64).save(path, optimize=True)


def grey_16_bit(image: Image.Image, path: Path) -> None:
    """A grey PNG of 16 bits: luma in full precision over three quarters of the range."""
    luma = np.asarray(image)[..., :3] @ np.array([0.299, 0.587, 0.114])
    Image.fromarray((luma * 193 + 4000).round().astype(np.uint16)).save(path, optimize=True)


def animation(image: Image.Image, path: Path) -> None:
    """A GIF of three frames that sway; the first is the upright one."""
    first = image.convert("RGB")
    shade = first.getpixel((0, 0))
    frames = [first, *(first.rotate(angle, Image.Resampling.BICUBIC, fillcolor=shade) for angle in (6, -6))]
    still, *others = [frame.quantize(48) for frame in frames]
    still.save(path, save_all=True, append_images=others, duration=200, loop=0)


CARRIERS = (
    Carrier("square_300.jpg", (300, 300), jpeg(80)),
    Carrier("square_400.jpg", (400, 400), jpeg(75)),
    Carrier("portrait.jpg", (320, 480), jpeg(80)),
    Carrier("landscape.jpg", (480, 320), jpeg(80)),
    Carrier("panorama.jpg", (720, 270), jpeg(65)),
    Carrier("turned_2.jpg", (360, 270), turned_jpeg(2)),
    Carrier("turned_3.jpg", (400, 300), turned_jpeg(3)),
    Carrier("turned_6.jpg", (300, 400), turned_jpeg(6)),
    Carrier("turned_8.jpg", (420, 280), turned_jpeg(8)),
    Carrier("cmyk.jpg", (240, 200), jpeg(80, "CMYK")),
    Carrier("grey.jpg", (300, 400), jpeg(88, "L")),
    Carrier("small.png", (96, 80), lossless("RGB", optimize=True)),
    Carrier("transparent.png", (400, 300), lossless("RGBA", optimize=True), opaque=False),
    Carrier("grey_transparent.png", (256, 256), lossless("LA", optimize=True), opaque=False),
    Carrier("palette.png", (200, 150), paletted),
    Carrier("grey_16_bit.png", (128, 96), grey_16_bit),
    Carrier("photo.webp", (384, 288), lossless("RGB", quality=75)),
    Carrier("animation.gif", (144, 144), animation),
    Carrier("scan.tiff", (108, 144), lossless("RGB", compression="tiff_adobe_deflate")),
    Carrier("tiny.bmp", (84, 70), lossless("RGB")),
)


VALIDATION = 20
"""Pictures of each class to validate with."""
SIDES = ((256, 256), (280, 210), (210, 280), (240, 240))


def draw_all(folder: Path, seed: int = SEED) -> None:
    """Write one folder a class to train on, and one to validate with.

    Each class has the same files and, in another order, the same looks.
    """
    plain = [Carrier(f"{i + 1:02}.jpg", SIDES[i % len(SIDES)], jpeg(70)) for i in range(VALIDATION)]
    for part, carriers in (("train", CARRIERS), ("val", plain)):
        looks = make_looks(len(carriers), Random(f"{seed}/looks" if part == "train" else f"{seed}/{part}/looks"))
        for name, shape in SHAPES.items():
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            dealt = Random(f"{seed}/{name}" if part == "train" else f"{seed}/{part}/{name}").sample(looks, len(looks))
            for carrier, look in zip(carriers, dealt, strict=True):
                draw_one(folder / part / name, carrier, shape, look, Random(f"{seed}/{part}/{name}/{carrier.name}"))


def draw_one(folder: Path, carrier: Carrier, shape: Callable[[Random], list[Part]], look: Look, random: Random) -> None:
    """Draw one picture and write it as its carrier has it."""
    image = paint_picture(shape(random), look, carrier.size, carrier.opaque, random)
    carrier.encode(image, folder / carrier.name)


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
