"""The losses of multi-label classification against torch, the paper's formula and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score
from torch.nn import functional as F

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.tasks import TASKS, MultiLabel, TaskName, plain_task, positive_weights

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(9, 4, generator=GENERATOR) * 3
TARGETS = (torch.rand(9, 4, generator=GENERATOR) < 0.4).float()
WEIGHTS = (0.5, 2.0, 1.25, 0.75)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_without_focus_it_is_torch_s_binary_cross_entropy(weights: tuple[float, ...] | None) -> None:
    loss = MultiLabel(positive_weights=weights).loss_sum(LOGITS, TARGETS) / len(LOGITS)
    expected = F.binary_cross_entropy_with_logits(
        LOGITS, TARGETS, pos_weight=None if weights is None else torch.tensor(weights)
    )
    assert torch.allclose(loss, expected)


def asymmetric(logit: float, target: float, positive: float, negative: float, margin: float) -> float:
    """Equations 4 to 7 of the paper, in plain Python."""
    p = 1 / (1 + math.exp(-logit))
    shifted = max(p - margin, 0.0)
    gain = (1 - p) ** positive * math.log(p)
    pain = shifted**negative * math.log(1 - shifted)
    return -target * gain - (1 - target) * pain


@pytest.mark.parametrize(
    ("task", "values"),
    [
        (MultiLabel.asymmetric(), (0, 4, 0.05)),
        (MultiLabel(1.0, 4.0, 0.05), (1, 4, 0.05)),
        (MultiLabel(2.0, 2.0), (2, 2, 0)),
        (MultiLabel(margin=0.2), (0, 0, 0.2)),
    ],
)
def test_the_asymmetric_loss_is_the_paper_s_formula(task: MultiLabel, values: tuple[float, float, float]) -> None:
    expected = sum(
        asymmetric(logit, target, *values) / 4
        for row, own in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True)
        for logit, target in zip(row, own, strict=True)
    )
    assert task.loss_sum(LOGITS, TARGETS).item() == pytest.approx(expected, rel=1e-5)


def test_a_negative_below_the_margin_costs_nothing_and_pulls_nowhere() -> None:
    logits = torch.tensor([[-4.0, 0.0]], requires_grad=True)
    MultiLabel.asymmetric().loss_sum(logits, torch.zeros(1, 2)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] > 0


def test_label_smoothing_by_hand() -> None:
    """p = 3/4, ε = 0.2: targets 0.9 and 0.1, so −0.9·ln 0.75 − 0.1·ln 0.25, and the other way round."""
    logits = torch.full((1, 2), math.log(3.0))
    loss = MultiLabel(label_smoothing=0.2).loss_sum(logits, torch.tensor([[1.0, 0.0]])).item()
    there = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    absent = -0.1 * math.log(0.75) - 0.9 * math.log(0.25)
    assert loss == pytest.approx((there + absent) / 2, rel=1e-6)


@pytest.mark.parametrize("task", [MultiLabel(), MultiLabel.asymmetric(0.1, WEIGHTS), MultiLabel(2.0, 2.0)])
def test_extreme_logits_keep_loss_and_gradient_finite(task: MultiLabel) -> None:
    logits = torch.tensor([[-200.0, 200.0, -200.0, 200.0]], requires_grad=True)
    loss = task.loss_sum(logits, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@given(st.integers(0, 9))
def test_sums_over_shards_add_up(cut: int) -> None:
    task = MultiLabel.asymmetric(0.1, WEIGHTS)
    parts = task.loss_sum(LOGITS[:cut], TARGETS[:cut]) + task.loss_sum(LOGITS[cut:], TARGETS[cut:])
    assert torch.allclose(parts, task.loss_sum(LOGITS, TARGETS))


def test_targets_by_hand() -> None:
    targets = MultiLabel().targets([[2, 0], [], [1]], 3)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert MultiLabel().targets([], 3).shape == (0, 3)


def test_validation_is_scikit_learn_s() -> None:
    task = MultiLabel.asymmetric()
    found = task.validation(torch.cat([task.tally(LOGITS[:4], TARGETS[:4]), task.tally(LOGITS[4:], TARGETS[4:])]))
    truth, probabilities = TARGETS.numpy(), LOGITS.double().sigmoid().numpy()
    assert found.score == pytest.approx(average_precision_score(truth, probabilities, average="macro"))
    assert found.figures["val_mean_average_precision"] == found.score
    assert found.loss == pytest.approx(F.binary_cross_entropy_with_logits(LOGITS, TARGETS).item(), rel=1e-6)
    assert found.thresholds.dtype == torch.float64 and found.thresholds.shape == (4,)
    decided = probabilities >= found.thresholds.numpy()
    assert found.figures["val_macro_f1"] == pytest.approx(f1_score(truth, decided, average="macro"))


def test_positive_weights_by_hand() -> None:
    weights = positive_weights([10, 50, 90, 100], 100)
    assert weights == pytest.approx((9.0, 1.0, 1 / 9, 1.0))
    assert np.all(np.isfinite(weights))


@pytest.mark.parametrize("wrong", [{"positive_focus": 0.5}, {"negative_focus": -1.0}, {"margin": 1.0}])
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"focus.* margin and label_smoothing"):
        MultiLabel(**wrong)


def test_the_decision_is_every_class_that_reaches_its_threshold() -> None:
    task = MultiLabel()
    assert torch.equal(task.probabilities(LOGITS), torch.sigmoid(LOGITS.double()))
    assert task.first_thresholds(3).tolist() == [0.5, 0.5, 0.5]
    probabilities = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.1, 0.1]], dtype=torch.float64)
    assert task.decide(probabilities, torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64)) == [[1, 2], []]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_s_columns_are_known_to_the_tables(name: TaskName) -> None:
    task = plain_task(name)
    known = {"label", "labels", "probability", "abstain", "distance", "problem"}
    assert set(task.columns) <= known and task.truth_column in {"true_class", "true_classes"}
    with pytest.raises(UsageError, match="--loss"):
        task.configured(TrainingSettings(loss="bce" if name == "single" else "cross_entropy"), COUNTS, 7)
    with pytest.raises(UsageError, match="--metric"):
        task.configured(
            TrainingSettings(metric="accuracy" if name != "single" else "mean_average_precision"), COUNTS, 7
        )


COUNTS = {"cat": 3, "dog": 4}


def test_sampling_by_class_needs_one_class_per_image() -> None:
    with pytest.raises(UsageError, match="--sampling balanced"):
        MultiLabel.configured(TrainingSettings(sampling="balanced"), COUNTS, 7)


def test_the_focal_loss_weighs_each_class_by_its_error() -> None:
    task = MultiLabel.configured(TrainingSettings(loss="focal", class_weights='{"dog": 3}'), COUNTS, 7)
    logits, targets = torch.tensor([[0.4, -1.2]], dtype=torch.float64), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    first, second = torch.sigmoid(logits)[0].tolist()
    expected = (-(first**2) * math.log(1 - first) - 3 * (1 - second) ** 2 * math.log(second)) / 2
    assert task.loss_sum(logits, targets).item() == pytest.approx(expected, rel=1e-6)


def test_macro_f1_can_choose_the_epoch() -> None:
    task = MultiLabel.configured(TrainingSettings(metric="macro_f1"), COUNTS, 7)
    found = task.validation(task.tally(torch.randn(9, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] * 3)))
    assert task.figure == "val_macro_f1"
    assert found.score == found.figures["val_macro_f1"] != found.figures["val_mean_average_precision"]
