"""Draw small data sets of three kinds as class folders, for benchmarks: `python -m benchmarks.drawn OUT`.

`shapes` are outlines on noise, `textures` sums of gratings, and `cells` grey, blurred and noisy, like micrographs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
SIDE = 160


def main(out: Path, images: int = 60) -> None:
    """Write every set below `out`, with so many images of each class."""
    for kind, (draw, classes) in KINDS.items():
        for label, name in enumerate(classes):
            folder = out / kind / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(images):
                generator = np.random.default_rng((label, number, len(kind)))
                Image.fromarray(draw(label, generator)).save(folder / f"{number:03d}.png")


def shape(label: int, generator: np.random.Generator) -> Pixels:
    """Draw a regular polygon with 3 + `label` corners, in a random place, size, direction and colour."""
    canvas = generator.integers(0, 256, (SIDE // 8, SIDE // 8, 3)).astype(np.uint8)
    canvas = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) // 2 + 60
    corners = 3 + label
    angles = generator.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    radius = generator.uniform(0.12, 0.3) * SIDE
    centre = generator.uniform(0.35, 0.65, 2) * SIDE
    points = (centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.int32)
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    cv2.polylines(canvas, [points], True, colour, int(generator.integers(2, 6)), cv2.LINE_AA)
    return noisy(canvas, generator, 12)


def texture(label: int, generator: np.random.Generator) -> Pixels:
    """Draw gratings whose frequencies and number depend on the class, in random directions and colours."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    canvas = np.full((SIDE, SIDE, 3), 128.0)
    for _ in range(2 + label % 3):
        angle, phase = generator.uniform(0, np.pi), generator.uniform(0, 2 * np.pi)
        frequency = (5 + 4 * (label // 3)) * generator.uniform(0.8, 1.25)
        wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        canvas += wave[..., None] * generator.uniform(-60, 60, 3)
    return noisy(np.clip(canvas, 0, 255).astype(np.uint8), generator, 20)


def cells(label: int, generator: np.random.Generator) -> Pixels:
    """Draw bright blobs on a dark ground; classes differ in their number, size and elongation."""
    canvas = np.full((SIDE, SIDE), generator.integers(20, 60), np.uint8)
    number, size, ratio = ((14, 8, 1.0), (14, 8, 2.0), (24, 6, 1.0), (9, 12, 1.4))[label]
    for _ in range(int(generator.poisson(number)) + 1):
        centre = tuple(int(value) for value in generator.uniform(0, SIDE, 2))
        long = size * generator.uniform(0.7, 1.3)
        axes = (int(long * ratio**0.5), int(long / ratio**0.5))
        cv2.ellipse(canvas, centre, axes, generator.uniform(0, 180), 0, 360, int(generator.integers(90, 200)), -1)
    canvas = cv2.GaussianBlur(canvas, (0, 0), generator.uniform(1.5, 3.5))
    return noisy(canvas, generator, 15)


def noisy(image: Pixels, generator: np.random.Generator, deviation: float) -> Pixels:
    """Add normal noise."""
    noise = generator.normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


KINDS: dict[str, tuple[Callable[[int, np.random.Generator], Pixels], tuple[str, ...]]] = {
    "shapes": (shape, ("triangle", "square", "pentagon", "hexagon", "heptagon")),
    "textures": (texture, ("two_coarse", "three_coarse", "four_coarse", "two_fine", "three_fine", "four_fine")),
    "cells": (cells, ("round", "long", "many", "large")),
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
