"""A small member of every family, with all weights randomised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import nn

from visionadapt.backbones import Backbone, load

FAMILIES = {
    "tf_efficientnet_lite0": 64,
    "efficientnet_b0": 64,
    "efficientnetv2_rw_t": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_large_100": 64,
    "mobilenetv4_conv_small": 64,
    "resnet18": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "resnetv2_50x1_bit": 64,
    "nfnet_l0": 64,
    "dm_nfnet_f0": 64,
    "regnety_002": 64,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "vit_tiny_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "deit3_small_patch16_224": 64,
    "vit_small_patch14_reg4_dinov2": 56,
    "vit_small_patch16_dinov3": 64,
    "vit_base_patch32_clip_224": 64,
    "vit_base_patch16_siglip_224": 32,
    "beit_base_patch16_224": 32,
    "beitv2_base_patch16_224": 32,
    "eva02_tiny_patch14_224": 56,
    "vit_small_patch16_rope_mixed_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "swinv2_tiny_window8_256": 64,
    "maxvit_tiny_tf_224": 64,
    "maxvit_rmlp_pico_rw_256": 64,
    "coatnet_nano_rw_224": 64,
    "densenet121": 64,
    "levit_128s": 224,
}

_TOKENS = {"depth": 4, "embed_dim": 192, "num_heads": 3}
_WINDOWS = {"depths": (2, 2, 2, 2), "embed_dim": 48}
_SMALLER: dict[str, dict[str, Any]] = {
    "resnet50": {"layers": (1, 2, 2, 1)},
    "resnext50_32x4d": {"layers": (1, 2, 2, 1)},
    "dm_nfnet_f0": {"depths": (1, 2, 2, 1), "channels": (256, 256, 512, 512)},
    "nfnet_l0": {"depths": (1, 2, 2, 1), "channels": (256, 256, 512, 512)},
    "resnetv2_50x1_bit": {"channels": (128, 128, 256, 256)},
    "vit_tiny_patch16_224": _TOKENS,
    "deit_tiny_distilled_patch16_224": _TOKENS,
    "deit3_small_patch16_224": _TOKENS,
    "vit_small_patch14_reg4_dinov2": _TOKENS,
    "vit_small_patch16_dinov3": _TOKENS,
    "vit_base_patch32_clip_224": _TOKENS,
    "vit_base_patch16_siglip_224": _TOKENS,
    "beit_base_patch16_224": _TOKENS,
    "beitv2_base_patch16_224": _TOKENS,
    "eva02_tiny_patch14_224": _TOKENS,
    "vit_small_patch16_rope_mixed_224": _TOKENS,
    "swin_tiny_patch4_window7_224": _WINDOWS,
    "swinv2_tiny_window8_256": _WINDOWS,
    "maxvit_tiny_tf_224": {"depths": (1, 2, 2, 1)},
    "maxvit_rmlp_pico_rw_256": {"depths": (1, 2, 2, 1)},
    "coatnet_nano_rw_224": {"depths": (1, 2, 2, 1)},
    "densenet121": {"block_config": (2, 3, 3, 2)},
}
"""timm's arguments for fewer and narrower blocks of the same kind: the time of some tests grows with their square."""


@contextmanager
def smaller(name: str) -> Iterator[None]:
    """Let timm make a smaller member of a family under the name of the usual one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", partial(timm.create_model, **_SMALLER.get(name, {})))
        yield


def randomise(model: nn.Module) -> None:
    """Change every parameter and running statistic: timm starts some at exactly 0 or 1, where errors would not show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """With images this small, threads wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Backbone:
    with smaller(request.param):
        backbone = load(request.param, "none", FAMILIES[request.param])
    randomise(backbone.model)
    return backbone


@pytest.fixture
def pixels(family: Backbone) -> torch.Tensor:
    size = family.config.image_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
