"""transformers' Trainer with PEFT's LoRA on the pointwise convolutions of the last two stages, and a new classifier."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, get_peft_model

from benchmarks.peers.common import backbone, folders, run
from benchmarks.peers.trainer import WithLoss, fit


def train(data: Path, epochs: int, careful: bool) -> float:
    """Return the test accuracy."""
    parts = folders(data)
    model = WithLoss(backbone(len(parts["train"].classes)), careful)
    lora = LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=r".*blocks\.[56]\..*\.(conv_pw|conv_pwl)",
        modules_to_save=["classifier"],
    )
    return fit(get_peft_model(model, lora), parts, epochs, careful, 1e-3)


if __name__ == "__main__":
    run(train)
