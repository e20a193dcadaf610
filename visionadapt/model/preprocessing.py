"""The preprocessing that a backbone was pretrained with, as one object for training, evaluation and prediction."""

from __future__ import annotations

from typing import cast, get_args

from visionadapt.backbones import Backbone, DataConfig, load
from visionadapt.core import spec
from visionadapt.errors import UsageError
from visionadapt.images import DecodeAdapter, NormalizeAdapter, Preprocessing, ResizeAdapter, compose
from visionadapt.images.resize import Interpolation, Policy
from visionadapt.model.classifier import Classifier

_POLICIES = {"center": "crop", "squash": "squash", "border": "letterbox"}
_INTERPOLATIONS = get_args(Interpolation)


def preprocessing_for(
    backbone: str | Backbone | Classifier,
    policy: str | None = None,
    image_size: int | None = None,
    scaled: bool = False,
) -> Preprocessing:
    """Return decoding, resizing and normalisation from the backbone's own configuration.

    Args:
        backbone: a timm name, a loaded backbone or a classifier.
        policy: how images become square: `crop`, `squash` or `letterbox`, or a complete spec such as
            `letterbox(224, interpolation=bilinear)`; the backbone's own by default.
        image_size: side in pixels; the backbone's own by default. Only for a name.
        scaled: whether large JPEGs are read at a fraction of their size; see `DecodeAdapter`.

    Raises:
        UsageError: the policy is unknown, or its size is not the one that the backbone takes.
    """
    if isinstance(backbone, Classifier):
        backbone = backbone.backbone
    config = (backbone if isinstance(backbone, Backbone) else load(backbone, "none", image_size)).config
    decode = DecodeAdapter(scaled=scaled)
    return compose(decode, _resize(config, policy), NormalizeAdapter(mean=config.mean, std=config.std))


def _resize(config: DataConfig, policy: str | None) -> ResizeAdapter:
    own = _POLICIES.get(config.crop_mode, "crop")
    if policy is not None and "(" in policy:
        resize: ResizeAdapter = spec.parse(policy, "resize")
        if resize.height_width != (config.image_size, config.image_size):
            own_size, given = f"{config.image_size}×{config.image_size}", "×".join(map(str, resize.height_width))
            raise UsageError(
                f"--resize {policy!r} gives {given} pixels and the backbone takes {own_size}; leave the size out, or "
                "give --image-size as well"
            )
        return resize
    known = spec.NAMES["resize"]
    if policy is not None and policy not in known:
        raise UsageError(f"--resize {policy!r} is unknown{spec.suggestion(policy, known)} (known: {', '.join(known)})")
    return ResizeAdapter(
        config.image_size,
        policy=cast(Policy, policy or own),
        crop_pct=config.crop_pct if policy in {None, own} else 1.0,
        interpolation=cast(
            Interpolation, config.interpolation if config.interpolation in _INTERPOLATIONS else "bicubic"
        ),
    )
