"""Several classifiers on one backbone are each exactly what they are alone."""

from __future__ import annotations

import pytest
import torch

import visionadapt as va
from visionadapt import adapters
from visionadapt.errors import AdapterError

from ..conftest import SMALL_BACKBONE


def trained(classes: str, adapter: str | None, seed: int = 0) -> va.Classifier:
    """A classifier whose trained tensors are random numbers."""
    model = va.classifier(SMALL_BACKBONE, tuple(classes), adapter, weights="none", image_size=64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def test_a_mixed_batch_gives_each_picture_its_classifier_s_logits() -> None:
    alone = {
        "fruit": trained("ab", "bottleneck(rank=2)", 1),
        "birds": trained("abc", "bottleneck(rank=4, blocks=last:2)", 2),
        "cars": trained("abcd", "side", 3),
        "probe": trained("abcde", None, 4),
    }
    shared = va.SharedClassifiers(trained("ab", None).backbone)
    before = {name: tensor.clone() for name, tensor in shared.backbone.state_dict().items()}
    for name, model in alone.items():
        shared.add(name, model)
    names = ["birds", "probe", "fruit", "birds", "cars", "fruit"]
    pixels = torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        mixed = shared(pixels, names)
        for row, name in enumerate(names):
            assert mixed[row].shape == (len(alone[name].classes),)
            torch.testing.assert_close(mixed[row], alone[name](pixels)[row], rtol=1e-5, atol=1e-5)
    for name in alone:
        shared.remove(name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.backbone.state_dict().items())
    assert set(shared.backbone.state_dict()) == set(before)


def test_what_does_not_fit_is_told() -> None:
    shared = va.SharedClassifiers(trained("ab", None).backbone)
    shared.add("first", trained("ab", "bottleneck"))
    with pytest.raises(AdapterError, match="is here already"):
        shared.add("first", trained("ab", None))
    other = va.classifier(SMALL_BACKBONE, ("a", "b"), weights="none", image_size=64, seed=5)
    with pytest.raises(AdapterError, match="weights_hash"):
        shared.add("second", other)
    with pytest.raises(AdapterError, match="no classifier is named 'third'; there are first"):
        shared(torch.randn(1, 3, 64, 64), ["third"])
    with pytest.raises(AdapterError, match="2 images"):
        shared(torch.randn(2, 3, 64, 64), ["first"])


def test_the_adapters_of_a_shared_backbone_stay_apart() -> None:
    shared = va.SharedClassifiers(trained("ab", None).backbone)
    shared.add("low", trained("ab", "lora(rank=2)"))
    shared.add("narrow", trained("ab", "bottleneck(rank=2)"))
    assert set(adapters.names(shared.backbone)) == {"low", "narrow"}
    assert {key.partition("/")[0] for key in adapters.state(shared.backbone)} == {"low", "narrow"}
