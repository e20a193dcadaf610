"""A small member of every family, with all weights randomised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
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
    backbone = load(request.param, "none", FAMILIES[request.param])
    randomise(backbone.model)
    return backbone


@pytest.fixture
def pixels(family: Backbone) -> torch.Tensor:
    size = family.config.image_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
