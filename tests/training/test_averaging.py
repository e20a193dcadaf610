"""Averaged weights against timm's, in training, and after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn

import visionadapt as va
from visionadapt import sources
from visionadapt.training.averaging import WeightAverage

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_it_is_timm_s(decay: float) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = WeightAverage(dict(model.named_parameters()), decay)
    other = ModelEmaV3(model, decay=decay, use_warmup=True, update_after_step=-1)
    for step in range(12):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
            model.bias.add_(torch.randn(2))
        average.update()
        other.update(model, step)
        for name, tensor in other.module.state_dict().items():
            torch.testing.assert_close(average.tensors[name], tensor)


def test_it_is_in_place_only_within() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    average = WeightAverage(dict(model.named_parameters()), 0.9)
    with torch.no_grad():
        model.weight.add_(1.0)
    with pytest.raises(KeyError), average.in_place():
        assert torch.equal(model.weight, before)
        raise KeyError
    assert torch.equal(model.weight, before + 1.0)


def test_a_run_validates_and_keeps_the_average_of_its_steps(tinted_folder: Make) -> None:
    rows = va.split(sources.FolderSource(tinted_folder()), val=0.3)
    kept, plain = [], []
    for decay in (0.0, 0.5):
        model = va.classifier(SMALL_BACKBONE, ("blood", "grass"), None, weights="none", image_size=64)
        changes = {"epochs": 3, "batch_size": 64, "head": "trained", "ema_decay": decay, "precision": "float32"}
        states = [epoch.state.tensors for epoch in va.fit(model, *rows, va.preprocessing_for(model), **changes)]
        plain.append([state["weights/head/linear.weight"] for state in states])
        kept.append([state["best/head/linear.weight"] for state in states])
    # one step in each epoch: the steps are the same, and the average follows from them
    for first, second in zip(*plain, strict=True):
        assert torch.equal(first, second)
    average = plain[1][0]  # the first decay is 0
    for number, weights in enumerate(plain[1][1:], 1):
        decay = min(0.5, 1 - (1 + number) ** (-2 / 3))
        average = decay * average + (1 - decay) * weights
    torch.testing.assert_close(kept[1][-1], average)
    torch.testing.assert_close(model.head.linear.weight.detach(), average)
    assert not torch.equal(kept[1][-1], plain[1][-1])


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    """Also with mixup, whose draws belong to the steps."""
    data = tinted_folder()
    common = ["train", "--data", data, "--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64"]
    common += ["--epochs", "3", "--batch-size", "4", "--adapter", "bottleneck(rank=2, blocks=last:1)"]
    common += ["--ema-decay", "0.9", "--mixup", "0.4", "--cutmix", "1"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert visionadapt(*common, "--out", whole)[0] == 0
    assert visionadapt(*common, "--out", stopped, "--max-minutes", "1e-9")[0] == 0
    assert not (stopped / "model.safetensors").exists()
    code, said = visionadapt("train", "--resume", stopped)
    assert code == 0, said
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_what_is_trained_once_more_is_averaged_too(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    """The average changes no step, so the classifiers differ by it alone."""
    data, weights = tinted_folder(), []
    for decay in ("0", "0.9"):
        run = tmp_path / decay
        given = ["train", "--data", data, "--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64"]
        given += ["--epochs", "1", "--batch-size", "4", "--adapter", "none", "--head", "trained"]
        code, said = visionadapt(*given, "--refit", "--ema-decay", decay, "--out", run)
        assert code == 0, said
        weights.append(load_file(run / "model.safetensors")["head/linear.weight"])
    assert not torch.equal(*weights)
