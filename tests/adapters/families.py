"""One small model with random weights for every family that adapters are tested on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
import transformers
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn

from visionadapt.adapters import find_sites
from visionadapt.backbones import Backbone
from visionadapt.backbones.data_config import DataConfig
from visionadapt.backbones.families import anatomy_of
from visionadapt.core.sites import Site

_SIZE = 32

TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", {"img_size": _SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}),
    "DeiT distilled": (
        "deit_tiny_distilled_patch16_224",
        {"img_size": _SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    ),
    "DINOv2 registers": (
        "vit_small_patch14_reg4_dinov2",
        {"img_size": _SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    ),
    "DINOv3": (
        "vit_small_patch16_dinov3",
        {"img_size": _SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "BEiT": (
        "beit_base_patch16_224",
        {"img_size": _SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    ),
    "EVA-02": (
        "eva02_tiny_patch14_224",
        {"img_size": _SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": _SIZE, "window_size": 4, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2)},
    ),
    "Swin v2": (
        "swinv2_tiny_window8_256",
        {"img_size": _SIZE, "window_size": 4, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2)},
    ),
    "ConvNeXt": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}),
    "ResNet": ("resnet26", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "block": BasicBlock}),
    "ResNeXt": (
        "resnext50_32x4d",
        {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "cardinality": 4, "base_width": 32},
    ),
    "BiT": ("", {}),
    "NFNet": ("test_nfnet", {}),
    "EfficientNet": ("test_efficientnet", {}),
    "EfficientNet Lite": ("", {}),
    "MobileNet v3": ("", {}),
    "RegNet": ("", {}),
    "MaxViT": ("test_maxvit", {"img_size": 64, "depths": (1, 1), "embed_dim": (32, 64)}),
}
FOREIGN = ("TransformerEncoder", "MultiheadAttention", "BERT")
FAMILIES = (*TIMM, *FOREIGN)


@dataclass(frozen=True)
class Subject:
    """A model under test: the module, its sites and its inputs."""

    model: nn.Module
    sites: list[Site]
    inputs: Any

    def output(self) -> Tensor:
        return run(self.model, self.inputs)


def run(model: nn.Module, inputs: Any) -> Tensor:
    """The model's first output."""
    output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    if isinstance(output, Tensor):
        return output
    return output.logits if hasattr(output, "logits") else output[0]


def subject(family: str) -> Subject:
    """A fresh copy of the family's model, with its sites."""
    shared, inputs = _shared(family)
    model = copy.deepcopy(shared)
    if isinstance(model, Backbone):
        return Subject(model, model.sites(), inputs)
    return Subject(model, find_sites(model), inputs)


@cache
def _shared(family: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model, inputs = _FOREIGN[family]() if family in _FOREIGN else _backbone(family)
    _stir(model)
    if isinstance(model, Backbone):
        model.sites()  # measured before it is copied
    return model.eval(), inputs


def _backbone(family: str) -> tuple[Backbone, Tensor]:
    name, arguments = TIMM[family]
    model = timm.create_model(name, num_classes=0, **arguments) if name else _SMALL[family]()
    size = arguments.get("img_size", 64)
    config = DataConfig(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0, "center")
    backbone = Backbone(name, model, anatomy_of(model, config.image_size), config, "random", model.num_features)
    return backbone, torch.randn(2, 3, size, size)


def _bit() -> nn.Module:
    return ResNetV2(layers=(1, 1), channels=(128, 128), num_classes=0, stem_chs=32, stem_type="fixed")


def _efficientnet_lite() -> nn.Module:
    """Convolutions padded like TensorFlow's."""
    blocks = decode_arch_def([["ds_r1_k3_s1_e1_c16"], ["ir_r2_k5_s2_e4_c24"]])
    return EfficientNet(blocks, num_classes=0, num_features=32, stem_size=8, pad_type="same", act_layer=nn.ReLU6)


def _mobilenet() -> nn.Module:
    blocks = decode_arch_def([["ds_r1_k3_s2_e1_c16_se0.25_nre"], ["ir_r2_k5_s2_e4_c24_se0.25"], ["cn_r1_k1_s1_c32"]])
    return MobileNetV3(blocks, num_classes=0, num_features=32, stem_size=8, act_layer=nn.Hardswish)


def _regnet() -> nn.Module:
    return RegNet(RegNetCfg(depth=4, w0=8, wa=12.0, wm=1.5, group_size=8, se_ratio=1.0), num_classes=0)


_SMALL: dict[str, Callable[[], nn.Module]] = {
    "BiT": _bit,
    "EfficientNet Lite": _efficientnet_lite,
    "MobileNet v3": _mobilenet,
    "RegNet": _regnet,
}


class Attention(nn.Module):
    """`nn.MultiheadAttention` on its own, in a module that gives it one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attention(x, x, x)[0])


def _encoder() -> tuple[nn.Module, Tensor]:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 5, 16)


def _attention() -> tuple[nn.Module, Tensor]:
    return Attention(), torch.randn(2, 5, 16)


def _bert() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
    )
    return transformers.BertForSequenceClassification(config), {
        "input_ids": torch.randint(0, 50, (2, 7)),
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),
    }


_FOREIGN: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "TransformerEncoder": _encoder,
    "MultiheadAttention": _attention,
    "BERT": _bert,
}


def _stir(model: nn.Module) -> None:
    """Randomise tensors that start at 0 or 1 (norms, layer scales, biases, statistics), as if they had been trained."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or (tensor.ndim > 1 and bool(tensor.any())):
                continue
            noise = 0.2 * torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + noise.abs())
            elif tensor.ndim <= 1 and "running" not in name and "gamma" in name:
                tensor.copy_(0.5 + noise)
            elif tensor.numel() and not name.endswith(("relative_coords_table", "num_batches_tracked")):
                tensor.add_(noise)
