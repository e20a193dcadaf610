"""The solved head: which penalty it takes, what it never holds out, and that `fit` serves it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import visionadapt as va
from visionadapt import sources
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import DivergenceError, UsageError
from visionadapt.tasks import Classification, ClassificationHead
from visionadapt.training import head_rows
from visionadapt.training.epochs import Best
from visionadapt.training.head_rows import HeadRows
from visionadapt.training.logistic_regression import LogisticRegression
from visionadapt.training.solved_head import LabelledFeatures, out_of_fold_logits, solve_head
from visionadapt.training.trainer import Trainer

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]


def labelled(rows: int, noise: float = 1.0, seed: int = 0, **given: Tensor) -> LabelledFeatures:
    """Rows of three overlapping classes, in columns of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(7))
    features = centres[labels] + noise * torch.randn(rows, 6, generator=generator)
    features = features * torch.tensor([1e-3, 1.0, 1e3, 1.0, 5.0, 1.0]) + 100
    return LabelledFeatures(features, F.one_hot(labels, 3).float(), torch.arange(rows) // 3 % 5, **given)


def accuracy(logits: Tensor, data: LabelledFeatures) -> float:
    return (logits.argmax(1) == data.targets.argmax(1)).double().mean().item()


def test_the_penalty_has_the_lowest_loss_on_rows_held_out() -> None:
    found = solve_head(labelled(300))
    assert found.held_out[found.penalty] == min(found.held_out.values())
    assert list(found.held_out) == sorted(found.held_out, reverse=True)
    others = labelled(3_000, seed=1)
    assert accuracy(found.logits(others.features), others) > 0.6


@pytest.mark.slow
def test_fewer_rows_take_a_stronger_penalty_and_pure_noise_the_strongest() -> None:
    assert solve_head(labelled(30)).penalty > solve_head(labelled(3_000)).penalty
    noise = labelled(300)
    shuffled = noise.targets[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    found = solve_head(LabelledFeatures(noise.features, shuffled, noise.folds))
    assert found.penalty == max(found.held_out)


@pytest.mark.slow
def test_the_loss_on_held_out_rows_is_that_of_the_logits_out_of_fold() -> None:
    data = labelled(300)
    found = solve_head(data)
    loss = F.cross_entropy(out_of_fold_logits(data), data.targets.argmax(1)).item()
    assert loss == pytest.approx(min(found.held_out.values()), abs=1e-4)


@pytest.mark.slow
def test_of_many_rows_one_fold_chooses_and_every_fold_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(600)
    monkeypatch.setattr("visionadapt.training.solved_head.MOST_HELD_OUT", 500)
    assert out_of_fold_logits(data).isfinite().all()
    found, rest = solve_head(data), data.folds != 0
    first = F.cross_entropy(solve_head(data).logits(data.features[~rest]), data.targets[~rest].argmax(1)).item()
    assert min(found.held_out.values()) >= first  # the head in service has seen these rows


def test_without_rows_to_hold_out_there_is_a_head_all_the_same() -> None:
    few = labelled(3, noise=0.0)
    found = solve_head(LabelledFeatures(few.features, few.targets, torch.full((3,), -1)))
    assert not found.held_out
    assert accuracy(found.logits(few.features), few) == 1.0


def test_constant_and_absent_features_give_the_frequencies_of_the_classes() -> None:
    targets = F.one_hot(torch.tensor([0, 0, 0, 1] * 10), 2).float()
    found = solve_head(LabelledFeatures(torch.full((40, 5), 3.0), targets, torch.arange(40) % 5))
    assert torch.allclose(found.logits(torch.zeros(1, 5)).softmax(1), torch.tensor([[0.75, 0.25]]), atol=1e-3)


@pytest.mark.slow
def test_row_weights_are_repetitions() -> None:
    data = labelled(120)
    twice = (torch.arange(120) < 40).long() + 1
    rows = torch.arange(120).repeat_interleave(twice)
    repeated = LabelledFeatures(data.features[rows], data.targets[rows], data.folds[rows])
    weighted = labelled(120, weights=twice.float())
    one, other = solve_head(repeated), solve_head(weighted)
    mean, scale = data.features.mean(0), data.features.std(0)
    probe = mean + scale * torch.randn(50, 6, generator=torch.Generator().manual_seed(3))
    assert (one.logits(probe).argmax(1) == other.logits(probe).argmax(1)).double().mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("useful", [True, False])
def test_further_features_count_where_they_help_on_rows_held_out(useful: bool) -> None:
    data = labelled(300)
    further = torch.randn(300, 40, generator=torch.Generator().manual_seed(5)) * 10
    if useful:
        further[:, :3] += 100 * data.targets
    wide = replace(data, features=torch.cat([data.features, further], 1))
    alone, found = solve_head(data), solve_head(replace(wide, own=6))
    assert bool(found.weight[6:].any()) == useful
    assert accuracy(found.logits(wide.features), wide) >= accuracy(alone.logits(data.features), data)
    if not useful:
        assert torch.equal(found.logits(wide.features), alone.logits(data.features))
        assert torch.equal(out_of_fold_logits(replace(wide, own=6)), out_of_fold_logits(data))


@pytest.mark.slow
def test_two_heads_that_help_each_other_are_averaged_in_one() -> None:
    """Further features in which the own ones drown, though both tell something: neither head alone is the best."""
    data = labelled(300, noise=1.5)
    further = (
        torch.randn(300, 400, generator=torch.Generator().manual_seed(5)) + 0.15 * data.targets[:, [0, 1, 2, 0] * 100]
    )
    every = replace(data, features=torch.cat([data.features, 3_000 * further], 1))
    both = replace(every, own=6)
    logits = torch.stack([solve_head(each).logits(each.features) for each in (data, every)]).mean(0)
    assert torch.allclose(solve_head(both).logits(both.features), logits, atol=1e-3)
    unseen = [out_of_fold_logits(each) for each in (data, every, both)]
    assert torch.allclose(unseen[2], (unseen[0] + unseen[1]) / 2, atol=1e-3)
    losses = [F.cross_entropy(each, data.targets) for each in unseen]
    assert losses[2] < 0.95 * min(losses[:2])


@pytest.mark.parametrize("factor", [0.01, 0.1, 1.0, 10.0])
def test_no_loss_is_below_the_lowest_that_the_targets_allow(factor: float) -> None:
    data = labelled(60)
    data = replace(data, softmax=False, targets=data.targets * 0.5 + 0.25, positive=torch.tensor([factor, 1.0, 2.0]))
    assert min(solve_head(data).held_out.values()) > -1e-6
    problem = LogisticRegression(data.features, data.targets, softmax=False, positive=data.positive)
    odds = data.targets * data.positive / (1 - data.targets)
    hit, _ = problem.losses(odds.log()[:, None], data.targets[:, None])
    assert torch.allclose(hit[:, 0], problem.lowest_losses(data.targets), atol=1e-5)


def test_the_loss_on_held_out_rows_is_that_above_smoothed_targets() -> None:
    data = labelled(300)
    smooth = replace(data, targets=data.targets * 0.9 + 0.1 / 3)
    found = solve_head(smooth)
    divergence = F.kl_div(out_of_fold_logits(smooth).log_softmax(1), smooth.targets, reduction="batchmean")
    assert found.held_out[found.penalty] == pytest.approx(divergence.item(), abs=1e-4)


def test_a_head_takes_the_solved_weights_whatever_its_statistics() -> None:
    data = labelled(200)
    found = solve_head(data)
    head = ClassificationHead(6, 3)
    head.set_statistics(data.features.mean(0), data.features.std(0))
    head.set_linear(found.mean, found.weight, found.bias)
    assert torch.allclose(head(data.features), found.logits(data.features), atol=2e-3)


def test_a_class_of_one_group_is_never_held_out_and_views_share_a_fold(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, _ = va.split(source)
    task = Classification()
    labels = task.targets([train.labels(row) for row in range(len(train))], len(train.classes))
    rows = HeadRows(train, labels, size=4, views=2)
    for view in range(2):
        rows.add(torch.randn(len(train), 4), 0, view)
    found = rows.labelled(rows.features(), task)
    assert torch.equal(found.folds[: len(train)], found.folds[len(train) :])
    assert len(found.features) == len(found.targets) == 2 * len(train)
    assert set(found.folds.tolist()) <= {0, 1, 2, 3, 4}
    single = train.select([row for row in range(len(train)) if row == 0 or labels[row] != labels[0]])
    own = task.targets([single.labels(row) for row in range(len(single))], len(single.classes))
    assert HeadRows(single, own, size=4).labelled(torch.zeros(len(single), 4), task).folds[0] == -1


def test_of_too_many_rows_evenly_spaced_ones_are_collected(
    tinted_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = va.split(sources.FolderSource(tinted_folder()))
    monkeypatch.setattr(head_rows, "MOST_BYTES", -(-len(train) * 4 // 3))
    labels = torch.arange(len(train)) % len(train.classes)
    rows = HeadRows(train, labels, size=1)
    everything = torch.arange(len(train)).float()[:, None]
    for start in range(0, len(train), 4):
        rows.add(everything[start : start + 4], start)
    assert torch.equal(rows.features(), everything[::3])
    found = rows.labelled(rows.features(), Classification())
    assert torch.equal(found.targets.argmax(1), labels[::3])


def test_fit_without_adapters_serves_the_solved_head_in_one_epoch(tinted_folder: Make) -> None:
    train, val = va.split(sources.FolderSource(tinted_folder()), val=0.3)
    model = va.classifier(SMALL_BACKBONE, train.classes, None, weights="none", image_size=64)
    prepare = va.preprocessing_for(model)
    (epoch,) = va.fit(model, train, val, prepare, epochs=7, precision="float32")
    assert (epoch.epoch, epoch.epochs, epoch.best_epoch) == (1, 1, 1)
    pixels = torch.stack([prepare.device(prepare.host(train.read(row))[None])[0] for row in range(len(train))])
    labels = torch.tensor([train.label(row) for row in range(len(train))])
    with torch.no_grad():
        loss = F.cross_entropy(model(pixels), labels, label_smoothing=0.1).item()
    assert epoch.train_loss == pytest.approx(loss, abs=1e-3)
    assert epoch.state.facts["probe_accuracy"] == epoch.val_accuracy


def test_balanced_classes_count_alike(tinted_folder: Make) -> None:
    root = tinted_folder()
    for path in sorted((root / "grass").iterdir())[3:]:
        path.unlink()
    train, val = va.split(sources.FolderSource(root))
    losses = []
    for class_weights in ("none", "balanced"):
        model = va.classifier(SMALL_BACKBONE, train.classes, None, weights="none", image_size=64)
        prepare = va.preprocessing_for(model)
        (epoch,) = va.fit(model, train, val, prepare, class_weights=class_weights)
        losses.append(epoch.train_loss)
    assert losses[0] != losses[1]


def test_features_that_are_not_finite_end_the_run(tinted_folder: Make) -> None:
    train, val = va.split(sources.FolderSource(tinted_folder()))
    model = va.classifier(SMALL_BACKBONE, train.classes, None, weights="none", image_size=64)
    with torch.no_grad():
        next(model.backbone.parameters()).fill_(float("inf"))
    with pytest.raises(DivergenceError, match="--precision float32"):
        list(va.fit(model, train, val, va.preprocessing_for(model)))


@pytest.mark.parametrize(
    ("given", "adapted", "expected"),
    [
        ({}, False, ("solved", 1)),
        ({}, True, ("trained", 20)),
        ({"head": "trained"}, False, ("trained", 20)),
        ({"loss": "asymmetric"}, False, ("trained", 20)),
        ({"head": "solved", "epochs": 5}, False, ("solved", 1)),
    ],
)
def test_how_the_head_is_found(given: dict[str, str], adapted: bool, expected: tuple[str, int]) -> None:
    settings = TrainingSettings(**given).for_model(adapted=adapted)  # type: ignore[arg-type]
    assert (settings.head, settings.epochs) == expected
    assert settings.for_model(adapted=adapted) == settings


@pytest.mark.parametrize(("loss", "adapted"), [("auto", True), ("asymmetric", False)])
def test_a_head_that_cannot_be_solved_is_refused(loss: str, adapted: bool) -> None:
    with pytest.raises(UsageError, match="--head"):
        TrainingSettings(head="solved", loss=loss).for_model(adapted=adapted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.89, 0.89], 0),  # the solved head has 0.9
        ([0.89, 0.9], 2),
        ([0.91, 0.89], 1),  # 0.89 is within one standard error of 0.91, but below 0.9
        ([0.91, 0.905], 2),
        ([0.95, 0.92], 1),  # not within one standard error of 0.95
    ],
)
def test_no_epoch_below_the_solved_head_is_the_best(scores: list[float], best: int) -> None:
    found = Best(solved=0.9)
    for number, score in enumerate(scores, 1):
        if found.accepts(score, Classification().tolerance(found.highest, 100)):
            found = found.followed_by(score, number, {}, (0, 0))
    assert found.epoch == best


def test_one_lucky_epoch_among_worse_ones_is_not_preferred_to_the_solved_head() -> None:
    found = Best(solved=0.9)
    assert not found.accepts(0.95, 0.02, level=0.89)
    assert found.accepts(0.95, 0.02, level=0.9)
    assert found.accepts(0.95, 0.02, level=math.nan)
    assert Best().accepts(0.95, 0.02, level=0.1), "there is no solved head"
    tied = 14 / 20
    assert sum([tied] * 3) / 3 < tied, "but for rounding, they are equal"
    assert Best(solved=tied).accepts(tied, 0.02, level=sum([tied] * 3) / 3)


@pytest.mark.slow
def test_where_every_epoch_is_worse_the_solved_head_is_served(
    tinted_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(trainer: Trainer) -> tuple[float, float]:
        torch.nn.init.ones_(trainer.model.head.linear.weight)
        return 1.0, 0.1

    monkeypatch.setattr(Trainer, "_train", spoil)
    train, val = va.split(sources.FolderSource(tinted_folder()), val=0.3)
    predicted = []
    for adapter in (None, "bottleneck(rank=2, blocks=last:1)"):
        model = va.classifier(SMALL_BACKBONE, train.classes, adapter, weights="none", image_size=64)
        prepare = va.preprocessing_for(model)
        *_, epoch = va.fit(model, train, val, prepare, epochs=2, precision="float32")
        pixels = torch.stack([prepare.device(prepare.host(val.read(row))[None])[0] for row in range(len(val))])
        with torch.no_grad():
            predicted.append(model(pixels))
    assert epoch.best_epoch == 0
    assert torch.allclose(predicted[0], predicted[1], atol=1e-3)
    facts = epoch.state.facts
    assert facts["solved_metrics"]["val_accuracy"] == facts["probe_accuracy"] == facts["solved"] > epoch.val_accuracy
