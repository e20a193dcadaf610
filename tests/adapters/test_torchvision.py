"""Every method on torchvision's classification families and on torch's and transformers' own modules, without sites.

Each either attaches, and then each of its parameters gets a gradient, or refuses in one line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model
from transformers import BeitConfig, BeitModel, BertConfig, BertModel, SwinConfig, SwinModel, ViTConfig, ViTModel

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
SIZES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 32,
    "vit_b_16": 32,
    "wide_resnet50_2": 32,
}
STEPS = {"mobilenet_v3_small": 0.5}  # untrained, its output hardly depends on its layers
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY_IMAGES = {**TINY, "image_size": 32, "patch_size": 8}


def _torchvision(name: str) -> nn.Module:
    extra = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    extra |= {"image_size": 32} if name == "vit_b_16" else {}
    return get_model(name, weights=None, num_classes=3, **extra)


def _swin() -> nn.Module:
    return SwinModel(SwinConfig(image_size=32, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4))


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "transformers ViT": lambda: ViTModel(ViTConfig(**TINY_IMAGES), add_pooling_layer=False),
    "transformers Swin": _swin,
    "transformers BEiT": lambda: BeitModel(
        BeitConfig(**TINY_IMAGES, use_relative_position_bias=True), add_pooling_layer=False
    ),
    "transformers BERT": lambda: BertModel(
        BertConfig(**TINY, vocab_size=50, max_position_embeddings=16), add_pooling_layer=False
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
        for seed in range(3):
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


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", SIZES)
def test_torchvision(family: str, method: str) -> None:
    torch.manual_seed(0)
    _check(
        _prepared(_torchvision(family)), torch.randn(2, 3, SIZES[family], SIZES[family]), method, STEPS.get(family, 0.1)
    )


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
