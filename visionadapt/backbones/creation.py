"""Create a timm model by name: without a classifier, for one image size, with pretrained or random weights."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import get_pretrained_cfg, is_model, split_model_name_tag
from torch import nn

from visionadapt.errors import BackboneError


@cache
def check_name(name: str) -> None:
    """Raise BackboneError, with similar names, unless timm knows the model `name` (with or without `.tag`)."""
    if any(character in name for character in "/\\:"):
        raise BackboneError(f"backbone '{name}': pass the name of a timm model here, and a file with --weights FILE")
    base, tag = split_model_name_tag(name)
    if not is_model(base):
        raise BackboneError(f"unknown backbone '{name}'{_similar(base, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise BackboneError(f"backbone '{base}' has no weights tagged '{tag}'{_similar(tag, tags)}")


def create(
    name: str, image_size: int | None, pretrained: bool, seed: int, channels: int = 3, classes: int = 0
) -> nn.Module:
    """Create the timm model `name` for square images of `image_size` pixels; random weights depend on `seed`.

    It has timm's own classifier for a number of `classes`; by default none.
    """
    arguments: dict[str, Any] = {"num_classes": classes} | ({} if channels == 3 else {"in_chans": channels})
    configuration = get_pretrained_cfg(name)
    if image_size is not None and configuration is not None and configuration.fixed_input_size:
        arguments["img_size"] = image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    return model


@cache
def check_image_size(name: str, image_size: int) -> None:
    """Raise BackboneError if a model cannot take an image size, or would ignore pixels after its last whole patch."""
    configuration = get_pretrained_cfg(name)
    if configuration is not None and image_size == configuration.input_size[-1]:
        return  # its own
    try:
        with torch.device("meta"), torch.no_grad():
            model = create(name, image_size, pretrained=False, seed=0).eval()
            model(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise _impossible_size(name, image_size) from error
    patches = [module.patch_size[0] for module in model.modules() if isinstance(module, PatchEmbed)]
    if any(image_size % patch for patch in patches):
        raise _impossible_size(name, image_size)


def _impossible_size(name: str, image_size: int) -> BackboneError:
    with torch.device("meta"):
        model: Any = create(name, None, pretrained=False, seed=0)
    own = model.pretrained_cfg["input_size"][-1]
    step = max((level["reduction"] for level in getattr(model, "feature_info", [])), default=own)
    choice = f"choose a multiple of {step}, or its own {own}" if own % step == 0 else f"leave it at its own {own}"
    return BackboneError(f"backbone '{name}' cannot take images of {image_size} pixels: {choice}")


def _similar(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f": did you mean {', '.join(close)}?" if close else ""
