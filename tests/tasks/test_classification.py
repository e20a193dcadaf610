"""The loss, class weights and head of classification against torch and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError
from visionadapt.tasks import Classification, ClassificationHead, balanced_weights

LOGITS = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.tensor([0, 1, 2, 3, 3, 0, 1])
WEIGHTS = (0.5, 2.0, 1.25, 0.75)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_sum_over_the_count_is_torch_s_mean(smoothing: float) -> None:
    loss = Classification(smoothing).loss_sum(LOGITS, LABELS) / len(LABELS)
    assert torch.allclose(loss, F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))


def test_weights_are_torch_s_weighted_sum() -> None:
    loss = Classification(class_weights=WEIGHTS).loss_sum(LOGITS, LABELS)
    expected = F.cross_entropy(LOGITS, LABELS, weight=torch.tensor(WEIGHTS), reduction="sum")
    assert torch.allclose(loss, expected)


def test_label_smoothing_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/4 and ε = 0.3: targets 0.8, 0.1, 0.1 for class 0, so 0.8·ln 2 + 0.2·ln 4."""
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]])
    zero, one = (Classification(0.3).loss_sum(logits, torch.tensor([label])).item() for label in (0, 1))
    assert zero == pytest.approx(1.2 * math.log(2), rel=1e-6)
    assert one == pytest.approx(0.1 * math.log(2) + 0.9 * math.log(4), rel=1e-6)
    weighted = Classification(0.3, (2.0, 3.0, 1.0)).loss_sum(logits.repeat(2, 1), torch.tensor([0, 1])).item()
    assert weighted == pytest.approx(2 * zero + 3 * one, rel=1e-6)


@given(st.integers(0, 7))
def test_sums_over_shards_add_up(cut: int) -> None:
    task = Classification(0.1, WEIGHTS)
    parts = task.loss_sum(LOGITS[:cut], LABELS[:cut]) + task.loss_sum(LOGITS[cut:], LABELS[cut:])
    assert torch.allclose(parts, task.loss_sum(LOGITS, LABELS))


def test_the_gradient_is_probability_minus_target() -> None:
    logits = LOGITS.clone().requires_grad_()
    Classification().loss_sum(logits, LABELS).backward()
    assert torch.allclose(logits.grad, LOGITS.softmax(1) - F.one_hot(LABELS, 4), atol=1e-6)


def test_balanced_weights_by_hand() -> None:
    assert balanced_weights([30, 10]) == pytest.approx((2 / 3, 2.0))
    assert balanced_weights([5, 5, 5]) == (1.0, 1.0, 1.0)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8))
def test_balanced_weights_give_every_class_the_same_sum_and_rows_the_mean_one(counts: list[int]) -> None:
    sums = [weight * count for weight, count in zip(balanced_weights(counts), counts, strict=True)]
    assert sums == pytest.approx([sum(counts) / len(counts)] * len(counts))
    assert sum(sums) / sum(counts) == pytest.approx(1.0)


def test_balanced_weights_are_scikit_learn_s() -> None:
    utilities = pytest.importorskip("sklearn.utils.class_weight")
    expected = utilities.compute_class_weight("balanced", classes=np.arange(4), y=LABELS.numpy())
    assert balanced_weights(LABELS.bincount().tolist()) == pytest.approx(expected.tolist())


def test_a_fresh_head_gives_logits_of_zero() -> None:
    torch.manual_seed(0)
    head = ClassificationHead(5, 3)
    assert torch.equal(head(torch.randn(2, 5)), torch.zeros(2, 3))
    assert [tuple(parameter.shape) for parameter in head.parameters()] == [(3, 5), (3,)]
    assert set(head.state_dict()) == {"feature_mean", "feature_std", "linear.weight", "linear.bias"}


def test_features_are_standardised() -> None:
    features = torch.randn(200, 6, generator=torch.Generator().manual_seed(1)) * 10 ** torch.arange(-3.0, 3.0) + 5
    head = ClassificationHead(6, 6)
    head.set_statistics(features.mean(0), features.std(0))
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(6))
        head.linear.bias.fill_(2.0)
    logits = head(features)
    expected = (F.layer_norm(features.T.double(), (200,), eps=0.0).T * (199 / 200) ** 0.5 + 2).float()
    assert torch.allclose(logits.mean(0), torch.full((6,), 2.0), atol=1e-2)
    assert torch.allclose(logits.std(0), torch.ones(6), atol=1e-2)
    assert torch.allclose(logits, expected, atol=1e-2)


def test_a_channel_that_never_varies_is_left_unscaled() -> None:
    head = ClassificationHead(2, 1)
    head.set_statistics(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0]))
    assert head.feature_std.tolist() == [1.0, 2.0]
    nn.init.ones_(head.linear.weight)
    assert head(torch.tensor([[4.0, 4.0]])).item() == 3.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    head = ClassificationHead(4, 2)
    nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(0))
    features = torch.randn(3, 4).to(dtype)
    expected = features.float() @ head.linear.weight.T
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=1e-6)


def test_new_statistics_do_not_change_what_a_trained_head_gives() -> None:
    random = torch.Generator().manual_seed(0)
    head, features = ClassificationHead(5, 3), torch.randn(8, 5, generator=random) * 4 + 9
    head.set_statistics(features.mean(0), features.std(0))
    nn.init.normal_(head.linear.weight, generator=random)
    nn.init.normal_(head.linear.bias, generator=random)
    before = head(features)
    other = torch.randn(50, 5, generator=random) * torch.tensor([0.1, 1.0, 0.0, 9.0, 3.0]) - 2
    head.set_statistics(other.mean(0), other.std(0))
    assert torch.allclose(head.feature_mean, other.mean(0))
    assert torch.allclose(head(features), before, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_head_of_another_number_format_gives_float32(dtype: torch.dtype) -> None:
    head = ClassificationHead(4, 2)
    nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(0))
    features = torch.randn(3, 4)
    expected = head(features)
    logits = head.to(dtype)(features.to(dtype))
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=0.05)


def test_dropped_features_stand_at_their_mean() -> None:
    head = ClassificationHead(4, 2)
    head.set_statistics(torch.full((4,), 7.0), torch.full((4,), 2.0))
    nn.init.ones_(head.linear.weight)
    head.dropout.p = 1.0
    assert torch.equal(head.train()(torch.randn(3, 4)), torch.zeros(3, 2))
    assert not torch.equal(head.eval()(torch.randn(3, 4)), torch.zeros(3, 2))


def test_the_decision_is_the_most_probable_class() -> None:
    task = Classification()
    probabilities = task.probabilities(LOGITS)
    assert probabilities.dtype == torch.float64
    assert torch.allclose(probabilities.sum(1), torch.ones(7, dtype=torch.float64))
    assert task.decide(probabilities, task.first_thresholds(4)) == [[int(row.argmax())] for row in LOGITS]


def test_the_focal_loss_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/4: the true class 0 costs (1/2)² ln 2, the true class 1 (3/4)² ln 4."""
    task = Classification.configured(TrainingSettings(loss="focal", label_smoothing=0.0), COUNTS, 9)
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]])
    zero, one = (task.loss_sum(logits, torch.tensor([label])).item() for label in (0, 1))
    assert zero == pytest.approx(math.log(2) / 4, rel=1e-6)
    assert one == pytest.approx(9 / 16 * math.log(4), rel=1e-6)


COUNTS = {"cat": 4, "dog": 3, "fox": 2}


def test_weights_of_single_classes_are_factors_on_their_loss() -> None:
    task = Classification.configured(TrainingSettings(class_weights='{"dog": 2.5}'), COUNTS, 9)
    assert task.class_weights == (1.0, 2.5, 1.0)
    with pytest.raises(UsageError, match="no class 'dgo'; did you mean 'dog'"):
        Classification.configured(TrainingSettings(class_weights='{"dgo": 2}'), COUNTS, 9)
    for wrong in ('{"dog": 0}', '{"dog": true}', '{"dog": NaN}', '{"dog": "2"}'):
        with pytest.raises(UsageError, match="positive number"):
            TrainingSettings(class_weights=wrong)


def test_macro_f1_of_several_batches_is_scikit_learn_s() -> None:
    """A class without images that is predicted counts, one that is neither there nor predicted does not."""
    task = Classification.configured(TrainingSettings(metric="macro_f1"), COUNTS, 9)
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)) - torch.tensor([0, 0, 0, 0, 99.0])
    labels = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(2))
    tallies = torch.cat([task.tally(logits[:7], labels[:7]), task.tally(logits[7:], labels[7:])])
    found = task.validation(tallies)
    assert task.figure == "val_macro_f1"
    assert found.score == found.figures["val_macro_f1"]
    assert found.score == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"), abs=1e-12)
    assert found.figures["val_accuracy"] == (logits.argmax(1) == labels).double().mean()
    assert task.tolerance(0.5, 100) == 0.0
