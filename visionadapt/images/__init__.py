"""Image adapters: any picture → upright uint8 RGB → one size → normalised floats; each usable alone."""

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
