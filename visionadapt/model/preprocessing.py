"""The preprocessing that a backbone was pretrained with, as one object for training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

from visionadapt.backbones import Backbone, DataConfig, load
from visionadapt.core import spec
from visionadapt.errors import UsageError
from visionadapt.images import DecodeAdapter, NormalizeAdapter, Preprocessing, ResizeAdapter, compose
from visionadapt.images.channels import ProfileUse
from visionadapt.images.depth import GivenRange
from visionadapt.images.resize import Interpolation, Policy
from visionadapt.model.classifier import Classifier

_POLICIES = {"center": "crop", "squash": "squash", "border": "letterbox"}
_INTERPOLATIONS = get_args(Interpolation)


def preprocessing_for(
    backbone: str | Backbone | Classifier,
    policy: str | None = None,
    image_size: int | None = None,
    scaled: bool = False,
    sample_range: GivenRange | str = None,
    bands: Sequence[int] | int | str | None = None,
    max_pixels: int = DecodeAdapter.max_pixels,
    icc: ProfileUse = "convert",
) -> Preprocessing:
    """Return decoding, resizing and normalisation from the backbone's own configuration.

    Args:
        backbone: a timm name, a loaded backbone or a classifier.
        policy: how images become square: `crop`, `squash` or `letterbox`, or a complete spec such as
            `letterbox(224, interpolation=bilinear)`; the backbone's own by default.
        image_size: side in pixels; the backbone's own by default. Only for a name.
        scaled: whether large JPEGs are read at a fraction of their size; see `DecodeAdapter`.
        sample_range: the values of deep samples that become 0 and 255, as numbers or as text: `0,4095` or `declared`;
            see `DecodeAdapter`. `with_measured_range` takes them from a set.
        bands: the bands that are red, green and blue, from 1, as numbers or as text: `3,2,1`; or one band for each
            channel of a backbone that takes other than three.
        max_pixels: most pixels of an image; see `DecodeAdapter`.
        icc: whether colour profiles are converted to sRGB; see `DecodeAdapter`.

    Raises:
        UsageError: the policy is unknown, its size is not the one that the backbone takes, or the range or the bands
            are none.
    """
    if isinstance(backbone, Classifier):
        backbone = backbone.backbone
    config = (backbone if isinstance(backbone, Backbone) else load(backbone, "none", image_size)).config
    given = None if sample_range is None else read_range(sample_range)
    chosen = None if bands is None else read_bands(bands)
    if bands is None or isinstance(bands, str):
        _check_bands(chosen, config.channels)
    decode = DecodeAdapter(
        scaled=scaled, max_pixels=max_pixels, sample_range=given, bands=chosen, icc=icc, channels=config.channels
    )
    return compose(decode, _resize(config, policy), NormalizeAdapter(mean=config.mean, std=config.std))


def read_range(value: GivenRange | str) -> GivenRange:
    """Return a sample range from `0,4095`, `declared`, or what is one already.

    Raises:
        UsageError: the text is neither.
    """
    if not isinstance(value, str) or value == "declared":
        return cast(GivenRange, value)
    try:
        low, high = (_number(part) for part in value.split(","))
    except ValueError:
        low = high = 0
    if not low < high:
        raise UsageError(f"--sample-range {value!r} must be LOW,HIGH such as 0,4095, or declared")
    return low, high


def read_bands(value: Sequence[int] | int | str) -> tuple[int, ...]:
    """Return the numbers of bands from `3,2,1`, or from what are numbers already.

    Raises:
        UsageError: the text is not numbers from 1.
    """
    if not isinstance(value, str):
        return (value,) if isinstance(value, int) else tuple(value)
    parts = value.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--bands {value!r} must be numbers of bands from 1, such as 3,2,1")
    return tuple(int(part) for part in parts)


def _check_bands(bands: tuple[int, ...] | None, channels: int) -> None:
    """Raise UsageError where the bands do not make the channels."""
    if bands is None and channels not in (1, 3):
        every = ",".join(str(band + 1) for band in range(channels))
        raise UsageError(f"--channels {channels} takes as many bands: name them, such as --bands {every}")
    if bands is not None and len(bands) not in ({channels, 1} if channels == 3 else {channels}):
        numbers = ",".join(map(str, bands))
        raise UsageError(f"--bands {numbers} names {len(bands)}, and the backbone takes --channels {channels}")


def range_text(value: GivenRange) -> str | None:
    """Return a sample range as `read_range` takes it."""
    return ",".join(repr(end) for end in value) if isinstance(value, tuple) else value


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


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
