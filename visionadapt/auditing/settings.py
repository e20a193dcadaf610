"""Settings of an audit: one frozen dataclass, used by `audit` and by the command line alike. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from visionadapt.backbones import default_name


@dataclass(frozen=True)
class AuditSettings:
    """Settings of an audit."""

    backbone: str = default_name
    """timm model whose features reveal near duplicates and improbable labels."""

    weights: str = "pretrained"
    """pretrained, none for random ones, or a .safetensors or .pth file."""

    image_size: int | None = None
    """Side of the backbone's input in pixels; by default the pretrained one."""

    sample_range: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Values that become black and white in samples of more than 8 bits, such as 0,4095; by default measured."""

    bands: str | None = None
    """Bands that are red, green and blue, numbered from 1, such as 3,2,1."""

    val: float = 0.2
    """Share of each class that training would validate on, where the data has no val/ folder."""

    seed: int = 0
    """Seed of that split."""

    cache: Path | None = None
    """Folder that caches the backbone's features; by default visionadapt in the user's cache folder."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    workers: int = -1
    """Processes that read images; −1 chooses."""
