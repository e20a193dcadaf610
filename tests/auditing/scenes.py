"""Images for audits: all different, and of classes that any backbone distinguishes."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionadapt import auditing, sources
from visionadapt.auditing import Audit

from ..conftest import SMALL_BACKBONE

CLASSES = ("blue", "red")
SMALL: dict[str, Any] = {"backbone": SMALL_BACKBONE, "weights": "none", "image_size": 64}
OPTIONS = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0")


def scene(label: str, seed: int) -> Image.Image:
    """Draw an image of about 110 × 100 pixels: random patches and a little noise, mostly red or blue."""
    generator = np.random.default_rng(seed)
    patches = Image.fromarray(generator.integers(60, 196, (8, 8, 3), dtype=np.uint8))
    size = (100 - seed % 5, 110 + seed % 7)
    pixels = np.asarray(patches.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    pixels += generator.normal(0, 4, pixels.shape)
    pixels[..., 0 if label == "red" else 2] += 60
    pixels[..., 2 if label == "red" else 0] -= 60
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@functools.cache
def _file(label: str, seed: int) -> bytes:
    """Return a scene's PNG file, which many tests ask for."""
    file = io.BytesIO()
    scene(label, seed).save(file, "png")
    return file.getvalue()


def clean_folder(root: Path, splits: tuple[str, ...] = ("train", "val"), count: int = 14) -> Path:
    """Make `root/<split>/<class>/<number>.png`; all images differ."""
    seed = 0
    for split in splits:
        for label in CLASSES:
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                (folder / f"{number}.png").write_bytes(_file(label, seed))
    return root


def audited(source: Any, **options: Any) -> Audit:
    """Audit with the small backbone."""
    return auditing.audit(sources.FolderSource(source) if isinstance(source, Path) else source, **SMALL, **options)


def found_pairs(audit: Audit, kind: str) -> list[tuple[str, ...]]:
    """File and other file of each finding of a kind, in order."""
    found = [finding for finding in audit.findings if finding.kind == kind]
    return [(finding.file, finding.other) if finding.other else (finding.file,) for finding in found]
