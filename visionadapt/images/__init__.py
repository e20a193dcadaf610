"""Image adapters: decode any image to upright RGB, resize it, normalise it; each adapter also works alone.

Belongs here: turning one image into a backbone's input, from channels and size to augmentation.
Not here: labels, models, and mixing several images with their labels, such as mixup (`training/`).
"""

from visionadapt.images.augment import Augmentation, augmentation, seed_for
from visionadapt.images.compose import Preprocessing, compose
from visionadapt.images.decode import DecodeAdapter, Decoded
from visionadapt.images.image_files import Header, picture_header
from visionadapt.images.normalize import NormalizeAdapter
from visionadapt.images.preview import preview
from visionadapt.images.resize import Placement, ResizeAdapter

__all__ = [
    "Augmentation",
    "DecodeAdapter",
    "Decoded",
    "Header",
    "NormalizeAdapter",
    "Placement",
    "Preprocessing",
    "ResizeAdapter",
    "augmentation",
    "compose",
    "picture_header",
    "preview",
    "seed_for",
]


def __dir__() -> list[str]:
    return sorted(__all__)
