"""Ensembles: several trained classifiers as one, whose logits are the mean of theirs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from visionadapt import adapters
from visionadapt.adapters import AdapterSettings
from visionadapt.backbones import Backbone
from visionadapt.backbones.ensemble import EnsembleBackbone, copies_of
from visionadapt.backbones.feature_sets import FeatureSet
from visionadapt.errors import UsageError
from visionadapt.model.classifier import Classifier
from visionadapt.tasks import TaskName


def ensemble(classifiers: Sequence[Classifier], factors: Sequence[float] | None = None) -> Classifier:
    """Return one classifier whose logits are the mean of those of several, each times a factor.

    What is frozen in all of them runs once for an image, the rest once for each of them. The mean of logits is the
    logarithm of the geometric mean of probabilities, up to a constant: a linear function of the members' features, so
    that the result is a classifier like any other, with the features of all members in a row. It can be saved,
    calibrated, exported and served, but not trained further. The members do not change.

    Args:
        classifiers: at least two, trained on one backbone with the same classes.
        factors: one for each, such as 1 / temperature of its calibration; by default 1.

    Raises:
        UsageError: there are too few, or they differ in the backbone, its weights, the input, the classes or the task.
    """
    if len(classifiers) < 2:
        raise UsageError(f"an ensemble needs two classifiers at least, not {len(classifiers)}")
    first = classifiers[0]
    for other in classifiers:
        _check_alike(first, other)
    settings = [model.adapter for model in classifiers]
    plain = copy.deepcopy(first.backbone)
    if first.adapter is not None:
        adapters.detach(plain)
    features = [model.backbone.feature_set for model in classifiers]
    made = ensemble_on(plain, first.classes, settings, first.task, first.seed, first.weights, features)
    for place, model in enumerate(classifiers):
        if model.adapter is not None:
            tensors = adapters.state(model.backbone).items()
            adapters.load_state(made.backbone, {f"{_name(place)}/{key.partition('/')[2]}": t for key, t in tensors})
    scales = [factor / len(classifiers) for factor in factors or [1.0] * len(classifiers)]
    heads, backbone = [model.head for model in classifiers], made.backbone
    assert isinstance(backbone, EnsembleBackbone)
    with torch.no_grad():
        made.head.feature_mean.copy_(backbone.in_a_row([head.feature_mean for head in heads]))
        made.head.feature_std.copy_(backbone.in_a_row([head.feature_std for head in heads]))
        weights = [head.linear.weight * scale for head, scale in zip(heads, scales, strict=True)]
        made.head.linear.weight.copy_(backbone.in_a_row(weights))
        biases = [head.linear.bias * scale for head, scale in zip(heads, scales, strict=True)]
        made.head.linear.bias.copy_(torch.stack(biases).sum(0))
    if len(first.thresholds):
        made.thresholds = torch.stack([model.thresholds for model in classifiers]).mean(0)
    return made.eval()


def ensemble_on(
    backbone: Backbone,
    classes: Sequence[str],
    members: Sequence[AdapterSettings | None],
    task: TaskName = "single",
    seed: int = 0,
    weights: str = "pretrained",
    features: Sequence[FeatureSet] = (),
) -> Classifier:
    """Return the classifier that `ensemble` fills, with new adapter layers of each member on copies of a backbone.

    `features` are those of each member; by default the last ones.

    Raises:
        AdapterError: an adapter cannot be attached.
    """
    copies = copies_of(backbone, len(members))
    for place, copied in enumerate(copies):
        copied.use_features(features[place] if features else "last")
    for place, (copied, settings) in enumerate(zip(copies, members, strict=True)):
        if settings is not None:
            adapters.attach(copied, settings, sites=copied.sites(), name=_name(place), seed=seed + place)
    made = Classifier(EnsembleBackbone(copies), classes, None, seed, weights)
    made.members = tuple(members)
    made.set_task(task)
    return made


def _name(place: int) -> str:
    return f"member{place}"


def _check_alike(first: Classifier, other: Classifier) -> None:
    """Raise UsageError unless two classifiers can be members of one ensemble."""
    if other.members:
        raise UsageError("an ensemble cannot be a member of another one; name its members")
    for what in ("name", "weights_hash", "config"):
        mine, theirs = getattr(first.backbone, what), getattr(other.backbone, what)
        if mine != theirs:
            raise UsageError(f"the members of an ensemble have one backbone, not the {what} {mine} and {theirs}")
    for what in ("classes", "task"):
        mine, theirs = getattr(first, what), getattr(other, what)
        if mine != theirs:
            raise UsageError(f"the members of an ensemble have the same {what}, not {mine} and {theirs}")
