"""Mixup and CutMix against timm and torchvision, and in whole training runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.data.mixup import rand_bbox
from timm.loss import SoftTargetCrossEntropy
from torchvision.transforms import v2

import visionadapt as va
from visionadapt import sources
from visionadapt.backbones import load
from visionadapt.core.naming import stable_hash
from visionadapt.errors import UsageError
from visionadapt.frozen.features import compute_features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import make_plan
from visionadapt.tasks import Classification, MultiLabel
from visionadapt.training import mixing
from visionadapt.training.mixing import Grid, Mix, Mixer
from visionadapt.training.trainer import Trainer

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
SQUARE = Grid("NCHW", 8, 8)


def test_mixup_is_torchvision_s(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 4
    monkeypatch.setattr(torch, "_sample_dirichlet", lambda *_: torch.tensor([[0.3, 0.7]]))
    expected, targets = v2.MixUp(num_classes=4)(images, labels)
    mixed = Mix(0.3).apply({"x": images}, {"x": images.roll(1, 0)}, None)["x"]
    torch.testing.assert_close(mixed, expected)
    logits = torch.randn(6, 4)
    task = Classification()
    loss = 0.3 * task.loss_sum(logits, labels) + 0.7 * task.loss_sum(logits, labels.roll(1, 0))
    torch.testing.assert_close(loss, SoftTargetCrossEntropy()(logits, targets) * 6)


def test_the_loss_is_timm_s_with_label_smoothing() -> None:
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 4
    mixup = timm.data.Mixup(mixup_alpha=0.4, label_smoothing=0.1, num_classes=4)
    np.random.seed(3)
    share = np.random.RandomState(3)
    share.rand()
    own = float(share.beta(0.4, 0.4))
    kept = images.clone()
    expected, targets = mixup(images, labels.clone())
    torch.testing.assert_close(Mix(own).apply({"x": kept}, {"x": kept.flip(0)}, None)["x"], expected)
    logits, task = torch.randn(6, 4), Classification(0.1)
    loss = own * task.loss_sum(logits, labels) + (1 - own) * task.loss_sum(logits, labels.flip(0))
    torch.testing.assert_close(loss, SoftTargetCrossEntropy()(logits, targets) * 6)


def test_the_loss_of_several_labels_is_that_of_the_mixed_labels() -> None:
    logits, labels = torch.randn(6, 4), (torch.rand(6, 4) > 0.5).float()
    for task in (MultiLabel(), MultiLabel(label_smoothing=0.1, positive_weights=(1.0, 2.0, 3.0, 0.5))):
        apart = 0.3 * task.loss_sum(logits, labels) + 0.7 * task.loss_sum(logits, labels.flip(0))
        torch.testing.assert_close(task.loss_sum(logits, 0.3 * labels + 0.7 * labels.flip(0)), apart)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.75, 0.99, 1.0])
def test_boxes_are_timm_s(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid("NCHW", 9, 14)
    for row in range(9):
        for column in range(14):
            places = iter([row, column])
            monkeypatch.setattr(np.random, "randint", lambda *_, size=None, places=places: next(places))
            assert mixing._box(share, grid, row, column) == rand_bbox((1, 1, 9, 14), share)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NLC"])
def test_a_box_is_the_partner_s_and_its_area_the_partner_s_share(layout: str) -> None:
    grid = Grid(layout, 6, 6, 2 if layout == "NLC" else 0)  # type: ignore[arg-type]
    shape = {"NCHW": (2, 3, 6, 6), "NHWC": (2, 6, 6, 3), "NLC": (2, 38, 3)}[layout]
    own, other = torch.zeros(shape), torch.ones(shape)
    moments = {"moments": torch.zeros(2, 5)}
    areas = set()
    for seed in range(60):
        mix = Mixer(0.0, 1.0, grid).draw(seed)
        state = mix.apply({"x": own, **moments}, {"x": other, "moments": torch.ones(2, 5)}, grid)
        assert float(state["x"].sum()) == pytest.approx((1 - mix.share) * 36 * 3 * 2)
        assert state["moments"].tolist() == pytest.approx(np.full((2, 5), 1 - mix.share))
        areas.add(mix.share)
        if layout == "NLC":
            assert not state["x"][:, :2].any(), "a class token has no place in the image"
        top, bottom, left, right = mix.box or (0, 0, 0, 0)
        channel = state["x"][0, 0] if layout == "NCHW" else state["x"][0, ..., 0].flatten()[-36:]
        assert channel.reshape(6, 6)[top:bottom, left:right].all()
    assert len(areas) > 5


def test_shares_have_the_beta_distribution_and_both_kinds_come_alike() -> None:
    drawn = [Mixer(0.4, 1.0, SQUARE).draw(seed) for seed in range(2000)]
    mixed = np.array([mix.share for mix in drawn if mix.box is None])
    assert 0.45 < len(mixed) / len(drawn) < 0.55
    assert mixed.mean() == pytest.approx(0.5, abs=0.04)
    assert mixed.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.02)  # of Beta(α, α)
    assert drawn == [Mixer(0.4, 1.0, SQUARE).draw(seed) for seed in range(2000)]
    assert all(mix.box is None for mix in (Mixer(0.4, 0.0).draw(seed) for seed in range(9)))
    assert all(mix.box is not None for mix in (Mixer(0.0, 1.0, SQUARE).draw(seed) for seed in range(9)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cut", "grid"),
    [
        ("resnet18", 0, Grid("NCHW", 64, 64)),
        ("resnet18", 1, Grid("NCHW", 16, 16)),
        ("resnet18", 9, Grid("NCHW", 2, 2)),
        ("resnet18", 10, None),
        ("vit_tiny_patch16_224", 5, Grid("NLC", 4, 4, 1)),
        ("swin_tiny_patch4_window7_224", 2, Grid("NHWC", 16, 16)),
        ("swin_tiny_patch4_window7_224", 13, Grid("NHWC", 2, 2)),
    ],
)
def test_the_positions_at_a_cut(name: str, cut: int, grid: Grid | None) -> None:
    assert mixing._grid_at(load(name, "none", 64), cut) == grid


def small(adapter: str | None) -> va.Classifier:
    return va.classifier(SMALL_BACKBONE, ("blood", "grass"), adapter, weights="none", image_size=64)


@pytest.fixture
def rows(tinted_folder: Make) -> tuple[va.Manifest, va.Manifest]:
    return va.split(sources.FolderSource(tinted_folder()))


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_the_gradient_of_a_step_is_that_of_the_mixed_batch(
    changes: dict[str, float], rows: tuple[va.Manifest, va.Manifest], own_cache: Path
) -> None:
    """The same whatever portion of the batch is computed at once, as in several processes."""
    model = small("bottleneck(rank=2, blocks=last:1)")
    settings = va.TrainingSettings(precision="float32", dropout=0.0, engine="eager", label_smoothing=0.0, **changes)
    frozen = FrozenPart(model)
    pipeline = Pipeline(frozen, va.preprocessing_for(model), make_plan(frozen, settings))
    train, val = (compute_features(pipeline, part, settings, own_cache) for part in rows)
    trainer = Trainer(train, val, settings)
    model.train()
    batch = [2, 5, 3, 8, 0, 9, 1]
    found = []
    for portion in (7, 3, 1):
        trainer._accumulate(batch, portion)
        found.append([parameter.grad.clone() for parameter in trainer.parameters.values()])
    # by hand
    assert trainer.mixer is not None
    mix = trainer.mixer.draw(stable_hash(settings.seed, "mix", 0, batch[0]))
    state = train.batch(batch)
    crossing = mix.apply(state, {name: tensor.flip(0) for name, tensor in state.items()}, trainer.mixer.grid)
    assert not torch.equal(crossing["x"], state["x"])
    logits = model.head(model.features(crossing, pipeline.plan.cut))
    hard = torch.nn.functional.one_hot(train.labels[batch], 2).float()
    soft = mix.share * hard + (1 - mix.share) * hard.flip(0)
    expected = torch.autograd.grad(SoftTargetCrossEntropy()(logits, soft), list(trainer.parameters.values()))
    for gradients in found:
        for gradient, own in zip(gradients, expected, strict=True):
            own_features = model.backbone.own_features if own.shape == model.head.linear.weight.shape else None
            torch.testing.assert_close(gradient[..., :own_features], own[..., :own_features], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_mixing_changes_what_is_learned_and_two_runs_agree(rows: tuple[va.Manifest, va.Manifest]) -> None:
    weights = []
    for changes in ({}, {"mixup": 0.4}, {"mixup": 0.4}, {"cutmix": 1.0}):
        model = small("bottleneck(rank=2, blocks=last:1)")
        epochs = list(va.fit(model, *rows, va.preprocessing_for(model), epochs=2, batch_size=5, **changes))
        assert np.isfinite(epochs[-1].train_loss)
        weights.append(model.head.linear.weight.detach().clone())
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[3])


def test_cutmix_is_refused_where_there_is_no_map(rows: tuple[va.Manifest, va.Manifest]) -> None:
    model = small(None)
    prepare = va.preprocessing_for(model)
    with pytest.raises(UsageError, match="--cutmix"):
        next(va.fit(model, *rows, prepare, epochs=1, head="trained", cutmix=1.0))
    with pytest.raises(UsageError, match="--cutmix"):
        next(va.fit(model, *rows, prepare, epochs=1, task="multilabel", head="trained", cutmix=1.0))
    for option in ("mixup", "cutmix", "ema_decay"):
        with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} .*--head trained"):
            next(va.fit(model, *rows, prepare, epochs=1, **{option: 0.5}))
    assert next(va.fit(model, *rows, prepare, epochs=1, head="trained", mixup=0.2, ema_decay=0.9)).epoch == 1


@pytest.mark.parametrize("changes", [{"mixup": -0.1}, {"cutmix": float("inf")}, {"ema_decay": 1.0}])
def test_values_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        va.TrainingSettings(**changes)
