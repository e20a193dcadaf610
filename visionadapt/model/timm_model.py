"""A trained classifier as a plain timm model: adapters merged into the weights, the head as timm's own classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from visionadapt import adapters
from visionadapt.backbones.creation import create
from visionadapt.errors import UsageError
from visionadapt.model.classifier import Classifier

_MOST_ERROR = 1e-3
"""Largest difference of the logits on random pixels, relative to the largest logit."""


def timm_model(classifier: Classifier) -> nn.Module:
    """Return a new timm model [B, 3, S, S] → logits [B, C] with the weights of a trained classifier, in eval mode.

    `timm.create_model(name, num_classes=C)` loads its state dict with `strict=True`, and any library that takes timm
    models takes it: no part of it is visionadapt's. The adapters are merged into the weights. The head
    W · (x − mean) / std + b becomes timm's own linear classifier, with W / std and b − W · mean / std. The logits are
    those of the classifier, before the temperature of its calibration.

    Raises:
        AdapterError: the adapters cannot be merged into the weights, such as bottlenecks.
        UsageError: timm's model cannot hold the classifier: a merged adapter adds a bias, or timm's own classifier is
            not one linear layer on the pooled features.
    """
    if classifier.members:
        raise UsageError("timm's models hold one classifier, not an ensemble; take one of its members")
    if classifier.backbone.num_features > classifier.backbone.own_features:
        raise UsageError("timm's classifiers are on the last features alone; train with --features last")
    backbone = classifier.backbone if classifier.adapter is None else adapters.merge(classifier.backbone)
    weights = {name: tensor.float().cpu() for name, tensor in _model_of(backbone).state_dict().items()}
    config, classes = classifier.backbone.config, len(classifier.classes)
    made = create(classifier.backbone.name, config.image_size, False, 0, config.channels, classes)
    heads = [name for name, module in made.named_modules() if any(module is head for head in _heads(made))]
    missing = {name for name in made.state_dict() if name.rpartition(".")[0] not in heads} ^ set(weights)
    if missing:
        raise UsageError(
            f"timm's {classifier.backbone.name} cannot hold the merged weights: it differs in {min(missing)}; train "
            "with an adapter that adds no bias, such as lora, or export the classifier instead (visionadapt export)"
        )
    weight, bias = _folded(classifier)
    for head in heads:
        weights |= {f"{head}.weight": weight, f"{head}.bias": bias}
    try:
        made.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = "whose classifier is not one linear layer on the pooled features"
        raise UsageError(f"timm's {classifier.backbone.name}, {reason}, cannot hold this head") from error
    made.eval().requires_grad_(False)
    _check(classifier, made)
    return made


def _model_of(backbone: Any) -> nn.Module:
    model: nn.Module = backbone.model
    return model


def _heads(model: Any) -> Iterator[nn.Module]:
    """Yield timm's own linear classifiers: one, or two of a distilled model, whose mean is the result."""
    found = model.get_classifier()
    for head in found if isinstance(found, tuple | list) else (found,):
        if isinstance(head, nn.Linear):
            yield head


def _folded(classifier: Classifier) -> tuple[Tensor, Tensor]:
    """Return weight [C, D] and bias [C] of the head on features that are not standardised."""
    head = classifier.head
    weight = head.linear.weight.detach().double().cpu() / head.feature_std.double().cpu()
    bias = head.linear.bias.detach().double().cpu() - weight @ head.feature_mean.double().cpu()
    return weight.float(), bias.float()


@torch.no_grad()
def _check(classifier: Classifier, made: nn.Module) -> None:
    """Raise UsageError unless both give the same logits."""
    example, training = next(classifier.parameters()), classifier.training
    pixels = torch.randn(classifier.backbone.blank_pixels(2).shape, generator=torch.Generator().manual_seed(0))
    expected = classifier.eval()(pixels.to(example)).float().cpu()
    classifier.train(training)
    error = float((made(pixels) - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if not error <= _MOST_ERROR:
        name = classifier.backbone.name
        raise UsageError(f"timm's own classifier of {name} computes something else: logits differ by {error:.0e}")
