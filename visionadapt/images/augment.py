"""Augmentation of one image, seeded by an integer: the same seed and image give the same bits in any worker."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionadapt.errors import SpecError, UsageError
from visionadapt.images.augment_presets import PRESETS

Pipeline = Callable[..., Any]


@dataclass(frozen=True)
class Augmentation:
    """A random change of a decoded image, applied before resizing; made by `augmentation`.

    Attributes:
        pipeline: the name of a preset (`none`, `light`, `strong`), or a torchvision v2 or albumentations pipeline.

    Raises:
        SpecError: `pipeline` is an unknown name, or neither a name nor a callable.
    """

    pipeline: str | Pipeline

    def __post_init__(self) -> None:
        if isinstance(self.pipeline, str) and self.pipeline not in PRESETS:
            names = ", ".join(PRESETS)
            raise SpecError(f"unknown augmentation {self.pipeline!r}; choose {names}, or pass a pipeline")
        if not callable(self.pipeline) and not isinstance(self.pipeline, str):
            raise SpecError(f"an augmentation is the name of a preset or a pipeline, got {self.pipeline!r}")

    def __call__(self, pixels: Tensor, seed: int) -> Tensor:
        """Augment an image; the global random states of Python, NumPy and torch (CPU) stay as they were.

        Args:
            pixels: uint8 [C, H, W], upright, full size; not changed in place.
            seed: any non-negative integer, such as one from `seed_for`.

        Returns:
            uint8 [C, h, w] of any size.

        Raises:
            UsageError: the pipeline returns something else.
        """
        if isinstance(self.pipeline, str):
            return PRESETS[self.pipeline](pixels, random.Random(seed))
        if _is_albumentations(self.pipeline):
            changed = _run_albumentations(self.pipeline, pixels, seed)
        else:
            with _seeded(seed):
                changed = self.pipeline(pixels.clone())
        return _checked(changed)

    @property
    def is_none(self) -> bool:
        """Whether images stay as they are."""
        return self.pipeline == "none"

    @property
    def is_own(self) -> bool:
        """Whether it is a user-defined pipeline, whose `repr` need not change when its code does."""
        return not isinstance(self.pipeline, str)


def augmentation(preset_or_pipeline: str | Pipeline | Augmentation) -> Augmentation:
    """Make an `Augmentation` from the name of a preset, a torchvision v2 callable or an albumentations pipeline.

    - `none`: no change.
    - `light`: a random crop of 70–100 % of the area, its aspect ratio changed by a factor of at most 1.1; a
      horizontal flip with probability 0.5.
    - `strong`: a random crop of 35–100 % of the area, its aspect ratio changed by a factor of at most 4/3; a
      horizontal flip with probability 0.5; then one random change of colour, sharpness or geometry (TrivialAugment,
      Müller & Hutter 2021, arXiv:2103.10158).

    A torchvision pipeline takes and returns uint8 [3, H, W], an albumentations pipeline uint8 [H, W, 3].

    Raises:
        SpecError: an unknown name, or neither a name nor a callable.
    """
    return preset_or_pipeline if isinstance(preset_or_pipeline, Augmentation) else Augmentation(preset_or_pipeline)


def seed_for(seed: int, view: int, key: str) -> int:
    """Hash (BLAKE2b) a run's seed, an epoch or view, and an image's key to a seed in [0, 2⁶³)."""
    text = f"{seed}\0{view}\0{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the random states of Python, NumPy and torch (CPU), and restore them at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _is_albumentations(pipeline: Pipeline) -> bool:
    library = sys.modules.get("albumentations")
    return library is not None and isinstance(pipeline, library.BasicTransform | library.BaseCompose)


def _run_albumentations(pipeline: Any, pixels: Tensor, seed: int) -> Any:
    with _seeded(seed):
        pipeline.set_random_seed(seed % 2**32)
        image = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()).copy()
        changed = pipeline(image=image)["image"]
    if not isinstance(changed, np.ndarray):
        return changed
    return torch.from_numpy(np.ascontiguousarray(changed)).permute(2, 0, 1)


def _checked(pixels: Any) -> Tensor:
    if isinstance(pixels, Tensor) and pixels.dtype == torch.uint8 and pixels.ndim == 3 and pixels.numel():
        return pixels.as_subclass(Tensor)
    found = f"{pixels.dtype} of shape {tuple(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
    raise UsageError(
        f"the augmentation pipeline must return a uint8 image [3, H, W], got {found}; leave normalisation out of it"
    )
