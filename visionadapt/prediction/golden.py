"""Golden images: a few files with their pixels and logits, to check that a loaded classifier is the trained one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from visionadapt.errors import ImageError
from visionadapt.frozen.pipeline import Pipeline

MOST_IMAGES = 4
MOST_BYTES = 2_000_000
"""Larger files are passed over."""


@dataclass(frozen=True)
class GoldenImage:
    """An image file, and what preprocessing and classifier made of it: uint8 [3, S, S], uncalibrated float32 [C]."""

    name: str
    data: bytes
    pixels: Tensor
    logits: Tensor


def golden_images(
    pipeline: Pipeline, files: Iterable[tuple[str, bytes]], logits: Tensor | None = None
) -> tuple[GoldenImage, ...]:
    """Take the first few files that can be read and are not too large; no more of them are read than needed.

    `logits` float32 [N, C] are those of the first N files, where they are known.
    """
    kept: list[tuple[int, str, bytes, Tensor]] = []
    for place, (name, data) in enumerate(files):
        if len(data) <= MOST_BYTES:
            with suppress(ImageError):  # the ledger has it already
                kept.append((place, name, data, pipeline.prepare.host(data)))
        if len(kept) == MOST_IMAGES:
            break
    if not kept:
        return ()
    pixels = torch.stack([each for *_, each in kept])
    found = pipeline.outputs(pixels)[1] if logits is None else logits[[place for place, *_ in kept]].clone()
    return tuple(GoldenImage(name, data, each, row) for (_, name, data, each), row in zip(kept, found, strict=True))
