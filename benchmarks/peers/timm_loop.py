"""A plain loop over timm's model: frozen, in eval mode, a new classifier, AdamW."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.peers.common import BATCH, accuracy_of, backbone, folders, freeze, run


def train(data: Path, epochs: int, careful: bool) -> float:
    """Return the test accuracy."""
    parts = folders(data)
    loaders = {
        name: DataLoader(part, BATCH, shuffle=name == "train", num_workers=2, persistent_workers=True)
        for name, part in parts.items()
    }
    model = freeze(backbone(len(parts["train"].classes))).eval()
    if careful:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(epochs):
        for pixels, labels in loaders["train"]:
            with autocast(careful):
                loss = nn.functional.cross_entropy(model(laid_out(pixels, careful)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        evaluate(model, loaders["val"], careful)
    return evaluate(model, loaders["test"], careful)


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Any, careful: bool) -> float:
    """Accuracy on one part."""
    logits, labels = [], []
    for pixels, truth in loader:
        with autocast(careful):
            logits.append(model(laid_out(pixels, careful)).float())
        labels.append(truth)
    return accuracy_of(torch.cat(logits), torch.cat(labels))


def laid_out(pixels: torch.Tensor, careful: bool) -> torch.Tensor:
    """Channels last where that was asked for."""
    return pixels.contiguous(memory_format=torch.channels_last) if careful else pixels


def autocast(careful: bool) -> Any:
    """bfloat16 where that was asked for."""
    return torch.autocast("cpu", torch.bfloat16) if careful else nullcontext()


if __name__ == "__main__":
    run(train)
