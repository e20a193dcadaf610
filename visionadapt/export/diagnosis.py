"""Say what is wrong with an exported model, from the first of its stages that differs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from torch.nn import functional as F

from visionadapt.export.folder import STAGES
from visionadapt.export.golden import Array
from visionadapt.images import NormalizeAdapter, Preprocessing, ResizeAdapter
from visionadapt.images.resize import Interpolation, Policy

TOLERANCES: Mapping[str, float] = {
    "resized": 1.0,
    "prepared": 1e-5,
    "features": 3e-4,
    "logits": 3e-4,
    "probabilities": 1e-4,
    "class_index": 0.0,
    "abstain": 0.0,
    "distance": 3e-4,
}
"""Largest difference of each stage: absolute, or times the largest value where that is above 1 (but for `resized`)."""

_MEAN_LEVELS = 0.02
"""Mean difference of resized pixels, of 255: a sum may be rounded otherwise, a policy cannot."""


def difference(stage: str, found: Array, expected: Array) -> str | None:
    """Return by how much two results of a stage differ and for which image, or None where they agree."""
    if found.shape != expected.shape:
        return f"{stage} has the shape {list(found.shape)} instead of {list(expected.shape)}"
    apart = np.abs(np.nan_to_num(found.astype(np.float64)) - np.nan_to_num(expected.astype(np.float64)))
    scale = 1.0 if stage == "resized" else max(1.0, float(np.abs(expected).max(initial=0)))
    levels = stage == "resized" and apart.mean() > _MEAN_LEVELS
    if apart.max(initial=0) <= TOLERANCES[stage] * scale and not levels:
        return None
    row = int(apart.reshape(len(apart), -1).max(1).argmax())
    return f"{stage} differs by up to {apart.max():.3g} (mean {apart.mean():.3g}), most for golden image {row}"


def without_ties(found: Mapping[str, Array], expected: Mapping[str, Array], threshold: float) -> Mapping[str, Array]:
    """Return what is expected, with the found decision where a rounding of the probabilities decides.

    The threshold is the probability of a validation image, and golden images are validation images: such ties occur.
    """
    probabilities, chosen = expected["probabilities"], found["class_index"]
    if (
        found["probabilities"].shape != probabilities.shape
        or not ((chosen >= 0) & (chosen < probabilities.shape[1])).all()
    ):
        return expected
    best, least = probabilities.max(1), TOLERANCES["probabilities"]
    near = {
        "class_index": best - probabilities[np.arange(len(chosen)), chosen] <= least,
        "abstain": np.abs(best - threshold) <= least,
    }
    return {**expected, **{name: np.where(rows, found[name], expected[name]) for name, rows in near.items()}}


def first_difference(
    found: Mapping[str, Array], expected: Mapping[str, Array], prepare: Preprocessing, images: Sequence[Array] = ()
) -> tuple[str, ...]:
    """Return which is the first stage that differs, by how much and why, as one line; nothing where all agree.

    Args:
        found: results of stages by name; those that are not there are not compared.
        expected: what they should be.
        prepare: what should have been done before the classifier.
        images: where `found` begins at images, these, uint8 [H, W, C].
    """
    for stage in STAGES:
        wrong = difference(stage, found[stage], expected[stage]) if stage in found else None
        if wrong is None:
            continue
        if stage == "resized":
            why = cause_of_resizing(images, found[stage], expected[stage], prepare)
        else:
            why = cause(stage, found, expected, prepare)
        return (f"{wrong}: {why}" if why else wrong,)
    return ()


def cause(stage: str, found: Mapping[str, Array], expected: Mapping[str, Array], prepare: Preprocessing) -> str:
    """Return the likely cause of a wrong stage whose predecessors are right; empty where it is unknown."""
    if stage == "prepared":
        return _of_normalisation(found["resized"], found["prepared"], prepare)
    if stage == "features":
        return "a weight of the backbone is another one"
    if stage == "logits":
        return "a weight of the head is another one"
    return _of_temperature(found, expected) if stage == "probabilities" else ""


def cause_of_resizing(images: Sequence[Array], found: Array, expected: Array, prepare: Preprocessing) -> str:
    """Return the likely cause of wrong resized pixels [N, C, S, S] of images uint8 [H, W, C]."""
    if found.shape != expected.shape:
        return "the input size is another one"
    if found.shape[1] == 3 and _alike(found[:, ::-1], expected):
        return "the channel order is reversed (BGR)"
    resize = prepare.resize
    if resize is None:
        return ""
    for policy, interpolation in itertools.product(get_args(Policy), get_args(Interpolation)):
        other = dataclasses.replace(resize, policy=policy, interpolation=interpolation)
        if _alike(found, np.stack([_resized(other, image) for image in images])):
            return f"the resize policy is {_described(other)} instead of {_described(resize)}"
    if resize.interpolation != "nearest":
        blunt = np.stack([_without_antialiasing(resize, image) for image in images])
        if np.abs(found - blunt).mean() < np.abs(found - expected.astype(np.float64)).mean() / 3:
            return "antialiasing is off"
    return "the images are resized in another way"


def _alike(found: Array, other: Array) -> bool:
    return difference("resized", found, other) is None


def _resized(resize: ResizeAdapter, image: Array) -> Array:
    pixels = resize(torch.from_numpy(image).permute(2, 0, 1))
    return np.asarray(pixels)


def _described(resize: ResizeAdapter) -> str:
    return f"{resize.policy} ({resize.interpolation})"


def _without_antialiasing(resize: ResizeAdapter, image: Array) -> Array:
    """Scale an image by interpolation between neighbours alone, and place it as `ResizeAdapter` does."""
    place = resize.placement(*image.shape[:2])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    scaled = F.interpolate(pixels, size=(place.height, place.width), mode=resize.interpolation)[0].numpy()
    canvas = np.empty((image.shape[2], *resize.height_width))
    canvas[:] = np.resize(np.array(resize.fill, float), image.shape[2])[:, None, None]
    height, width = canvas.shape[1:]
    rows = slice(max(place.top, 0), min(place.top + place.height, height))
    columns = slice(max(place.left, 0), min(place.left + place.width, width))
    canvas[:, rows, columns] = scaled[
        :, rows.start - place.top : rows.stop - place.top, columns.start - place.left : columns.stop - place.left
    ]
    return canvas


def _of_normalisation(resized: Array, prepared: Array, prepare: Preprocessing) -> str:
    """Compare mean and standard deviation with those that turn the pixels into these floats, by least squares."""
    normalize = prepare.normalize or NormalizeAdapter()
    own = [np.broadcast_to(np.array(value, float), resized.shape[1]) for value in (normalize.mean, normalize.std)]
    measured = []
    for channel in range(resized.shape[1]):
        x, y = resized[:, channel].ravel() / 255, prepared[:, channel].ravel().astype(float)
        slope, offset = np.polyfit(x, y, 1)
        measured.append((-offset / slope, 1 / slope))
    parts = []
    for name, values, wanted in zip(("mean", "standard deviation"), zip(*measured, strict=True), own, strict=True):
        if not np.allclose(values, wanted, atol=1e-3):
            parts.append(f"the {name} is {_numbers(values)} instead of {_numbers(wanted)}")
    return " and ".join(parts)


def _numbers(values: Sequence[float] | Array) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _of_temperature(found: Mapping[str, Array], expected: Mapping[str, Array]) -> str:
    """Compare the temperatures that turn the logits into either probabilities, from the spread of their logarithms."""
    spreads = []
    for values in (found, expected):
        p = np.log(np.clip(values["probabilities"].astype(float), 1e-30, None))
        z = values["logits"].astype(float)
        p, z = (each - each.mean(1, keepdims=True) for each in (p, z))
        spreads.append(float((z * z).sum() / max((p * z).sum(), 1e-30)))
    return f"the temperature is {spreads[0]:.3f} instead of {spreads[1]:.3f}"
