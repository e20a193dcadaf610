"""timm backbones with a common structure, stem → blocks → finish, and the sites where adapters can be attached.

Belongs here: everything specific to timm: names, weights, input sizes and the structure of its families.
Not here: the image pipeline (`images/`), adapter layers (`adapters/`), the classifier's head (`model/`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from visionadapt.backbones.catalog import default_name
from visionadapt.backbones.data_config import DataConfig

if TYPE_CHECKING:
    from visionadapt.backbones.anatomy import Anatomy, Block, Segment
    from visionadapt.backbones.backbone import Backbone
    from visionadapt.backbones.loading import load

__all__ = ["Anatomy", "Backbone", "Block", "DataConfig", "Segment", "default_name", "load"]

if not TYPE_CHECKING:
    _LAZY = {"Anatomy": "anatomy", "Block": "anatomy", "Segment": "anatomy", "Backbone": "backbone", "load": "loading"}

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
