"""transformers' Trainer on timm's frozen model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from benchmarks.peers.common import BATCH, accuracy_of, backbone, folders, freeze, run


class WithLoss(nn.Module):
    """A model as Trainer wants it: keyword arguments, and a dict with the loss."""

    def __init__(self, model: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.channels_last = channels_last

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        if self.channels_last:
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        logits = self.model(pixel_values)
        loss = nn.functional.cross_entropy(logits, labels) if labels is not None else logits.sum() * 0
        return {"loss": loss, "logits": logits}


def collate(rows: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """Pictures and labels under the names that the model takes."""
    return {"pixel_values": torch.stack([row[0] for row in rows]), "labels": torch.tensor([row[1] for row in rows])}


def train(data: Path, epochs: int, careful: bool) -> float:
    """Return the test accuracy."""
    parts = folders(data)
    return fit(WithLoss(freeze(backbone(len(parts["train"].classes))), careful), parts, epochs, careful, 1e-3)


def fit(model: nn.Module, parts: dict[str, Any], epochs: int, careful: bool, learning_rate: float) -> float:
    """Train, evaluating every epoch; return the test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            learning_rate=learning_rate,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            dataloader_num_workers=2,
            remove_unused_columns=False,
            label_names=["labels"],
            bf16=careful,
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, collate, parts["train"], parts["val"])
        trainer.train()
        found = trainer.predict(parts["test"])
    return accuracy_of(found.predictions, found.label_ids)


if __name__ == "__main__":
    run(train)
