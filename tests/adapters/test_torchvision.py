"""Every method on torchvision's classification families and on torch's and transformers' own modules, without sites.

Each either attaches, and then each of its parameters gets a gradient, or refuses in one line.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
import transformers
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from torchvision.models.vgg import make_layers

from visionadapt import adapters
from visionadapt.errors import AdapterError

from .families import run

METHODS: dict[str, Any] = {
    "LoRA": adapters.LoRA(rank=2),
    "DoRA": adapters.DoRA(rank=2),
    "RepAdapter": adapters.RepAdapter(rank=2),
    "IA3": adapters.IA3(),
    "SSF": adapters.SSF(),
    "BitFit": adapters.BitFit(),
    "Bottleneck": adapters.Bottleneck(rank=2),
    "AdaptFormer": adapters.AdaptFormer(rank=8),
    "Convpass": adapters.Convpass(rank=2),
    "VPT": adapters.VPT(tokens=2),
}
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (lambda: _narrow(models.AlexNet(3)), 64),
    "convnext": (
        lambda: models.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], 0.1, num_classes=3),
        32,
    ),
    "densenet": (lambda: models.DenseNet(8, (1, 2, 2, 1), 16, num_classes=3), 32),
    "efficientnet": (lambda: _efficientnet(), 32),
    "efficientnet_v2": (lambda: _efficientnet_v2(), 32),
    "googlenet": (lambda: models.GoogLeNet(3, aux_logits=False, init_weights=False), 64),
    "inception_v3": (lambda: models.Inception3(3, aux_logits=False, init_weights=False), 96),
    "maxvit": (lambda: models.MaxVit((64, 64), 8, 2, [8, 16], [1, 2], 8, 0.0, num_classes=3), 64),
    "mnasnet": (lambda: models.MNASNet(0.5, 3), 32),
    "mobilenet_v2": (lambda: models.MobileNetV2(3, 0.25), 32),
    "mobilenet_v3_small": (lambda: models.mobilenet_v3_small(num_classes=3), 32),
    "regnet_y": (lambda: models.RegNet(BlockParams.from_init_params(4, 8, 12, 1.5, 8, 0.25), num_classes=3), 32),
    "resnet": (lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], 3), 32),
    "resnext": (lambda: models.ResNet(Bottleneck, [1, 1, 1, 1], 3, groups=32, width_per_group=4), 32),
    "shufflenet_v2": (lambda: models.ShuffleNetV2([2, 2, 2], [24, 48, 96, 192, 64], 3), 32),
    "squeezenet": (lambda: models.SqueezeNet("1_1", 3), 64),
    "swin": (lambda: models.SwinTransformer([4, 4], 8, [1, 2], [1, 2], [4, 4], num_classes=3), 64),
    "swin_v2": (lambda: _swin_v2(), 64),
    "vgg": (lambda: _narrow(models.VGG(make_layers([8, "M", 16, "M", 512]), 3, init_weights=False)), 32),
    "vit": (lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3), 32),
    "wide_resnet": (lambda: models.ResNet(Bottleneck, [1, 1, 1, 1], 3, width_per_group=72), 32),
}
"""torchvision's own classes, in small, and the side of the images; those without options have their usual size."""

STEPS = {"mobilenet_v3_small": 0.5}  # untrained, its output hardly depends on its layers
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY_IMAGES = {**TINY, "image_size": 32, "patch_size": 8}


def _narrow(model: Any) -> nn.Module:
    """Give the hidden layers of the classifier 32 units instead of 4,096."""
    linear = [layer for layer in model.classifier if isinstance(layer, nn.Linear)]
    widths = [linear[0].in_features, 32, 32, 3]
    small = iter(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))
    model.classifier = nn.Sequential(*(next(small) if layer in linear else layer for layer in model.classifier))
    return cast(nn.Module, model)


def _efficientnet() -> nn.Module:
    stages = [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(6, 3, 2, 8, 16, 2), MBConvConfig(6, 5, 2, 16, 24, 2)]
    return models.EfficientNet(stages, 0.2, num_classes=3)


def _efficientnet_v2() -> nn.Module:
    stages = [
        FusedMBConvConfig(1, 3, 1, 8, 8, 1),
        FusedMBConvConfig(4, 3, 2, 8, 16, 2),
        MBConvConfig(4, 3, 2, 16, 24, 2),
    ]
    return models.EfficientNet(stages, 0.2, num_classes=3, last_channel=64)


def _swin_v2() -> nn.Module:
    parts: Any = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return models.SwinTransformer([4, 4], 8, [1, 2], [1, 2], [4, 4], num_classes=3, **parts)


def _swin() -> nn.Module:
    return transformers.SwinModel(
        transformers.SwinConfig(image_size=32, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4)
    )


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "transformers ViT": lambda: transformers.ViTModel(transformers.ViTConfig(**TINY_IMAGES), add_pooling_layer=False),
    "transformers Swin": _swin,
    "transformers BEiT": lambda: transformers.BeitModel(
        transformers.BeitConfig(**TINY_IMAGES, use_relative_position_bias=True), add_pooling_layer=False
    ),
    "transformers BERT": lambda: transformers.BertModel(
        transformers.BertConfig(**TINY, vocab_size=50, max_position_embeddings=16), add_pooling_layer=False
    ),
}


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)


class SelfAttention(nn.MultiheadAttention):
    """Attention of a sequence to itself."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, x, need_weights=False)[0]


def _prepared(model: nn.Module) -> nn.Module:
    """Move new heads, layer scales and norms away from zero, as trained ones are."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() or parameter.abs().max() < 1e-3:
                parameter.normal_(std=0.5)
    return model.eval()


def _check(model: nn.Module, inputs: Any, method: str, step: float = 0.1) -> None:
    with torch.no_grad():
        plain = run(model, inputs)
    try:
        adapters.attach(model, METHODS[method])
    except AdapterError as error:
        assert "\n" not in str(error)
        return
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    reached: set[str] = set()
    for training in (True, False):
        model.train(training)
        for seed in range(3):  # one of them mostly reaches all
            if seed and set(parameters) == reached:
                break
            generator = torch.Generator().manual_seed(seed)
            model.zero_grad()
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(start[name] + torch.randn(parameter.shape, generator=generator) * step)
            output = run(model, inputs)
            (output * torch.randn(output.shape, generator=generator)).sum().backward()
            assert all(parameter.grad is not None for parameter in parameters.values())
            reached |= {name for name, parameter in parameters.items() if parameter.grad.any()}
    assert set(parameters) == reached
    with torch.inference_mode():
        changed = run(model, inputs)
    torch.testing.assert_close(changed, run(model, inputs).detach(), rtol=1e-4, atol=1e-4)
    assert not torch.equal(changed, plain)
    adapters.detach(model)
    with torch.no_grad():
        assert torch.equal(run(model, inputs), plain)


@cache
def _torchvision(family: str) -> nn.Module:
    torch.manual_seed(0)
    return _prepared(FAMILIES[family][0]())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_torchvision(family: str, method: str) -> None:
    model, side = copy.deepcopy(_torchvision(family)), FAMILIES[family][1]
    torch.manual_seed(0)
    _check(model, torch.randn(2, 3, side, side), method, STEPS.get(family, 0.1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", OTHERS)
def test_transformers(family: str, method: str) -> None:
    torch.manual_seed(0)
    model = _prepared(OTHERS[family]())
    inputs = {"input_ids": torch.arange(14).view(2, 7)} if family.endswith("BERT") else torch.randn(2, 3, 32, 32)
    _check(model, inputs, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("made", [_encoder, lambda: nn.Sequential(SelfAttention(16, 2, batch_first=True))])
def test_torch(made: Callable[[], nn.Module], method: str) -> None:
    torch.manual_seed(0)
    _check(_prepared(made()), torch.randn(2, 5, 16), method)
