"""What a run has shown, in words: each case follows from the figures."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from visionadapt.evaluation.verdict import verdict, verdict_on_test, weakest
from visionadapt.metrics.paired import difference

PER_CLASS = {
    "perch": {"support": 60, "recall": 0.9, "f1": 0.7},
    "mug": {"support": 60, "recall": 0.8, "f1": 0.9},
    "none": {"support": 0, "recall": None, "f1": None},
}


def judged(
    gained: int, lost: int, images: int = 120, right: int = 96, epoch: int = 5, adapted: bool = True, **more: Any
) -> Any:
    accuracy = right / images
    summary = {
        "val_accuracy": accuracy,
        "majority_accuracy": 0.5,
        "probe_accuracy": (right - gained + lost) / images,
        "only_this_classifier": gained,
        "only_probe": lost,
        "best_epoch": epoch,
        **more,
    }
    low, high = stats.binomtest(right, images).proportion_ci(method="wilson")
    evaluation = {
        "accuracy": accuracy,
        "pictures": images,
        "intervals": {"accuracy": [low, high]},
        "per_class": PER_CLASS,
    }
    return verdict(summary, evaluation, adapted=adapted)


@pytest.mark.parametrize(("gained", "lost", "clear"), [(20, 2, True), (8, 6, False), (5, 5, False), (30, 12, True)])
def test_it_is_clearly_better_where_the_interval_of_the_difference_says_so(gained: int, lost: int, clear: bool) -> None:
    told = judged(gained, lost)
    assert told.judgement[0].startswith("Clearly better" if clear else "Not clearly better")
    assert any("--adapter none" in step for step in told.steps) is not clear
    assert (difference(gained, lost, 120)[1] > 0) is clear


def test_a_run_that_is_no_better_than_chance_is_told_so_first() -> None:
    told = judged(4, 3, right=62)
    assert "largest class" in told.judgement[0] and any("audit" in step for step in told.steps)


def test_the_solved_head_a_few_images_and_a_head_alone_have_their_own_words() -> None:
    assert "saved that head" in judged(0, 0, epoch=0).judgement[0]
    assert any("--folds" in step for step in judged(9, 0, images=40, right=35).steps)
    fold = judged(9, 0, images=40, right=35, fold="2/5").steps
    assert any("label more" in step for step in fold) and not any("--folds" in step for step in fold)
    alone = judged(0, 0, adapted=False)
    assert "solved head" not in " ".join(alone.judgement)
    assert any("leave out --adapter none" in step for step in alone.steps)
    assert verdict({}, {"mean_average_precision": 0.9}, adapted=True) is None


def test_learning_from_the_validation_images_is_advised_until_it_was_done() -> None:
    assert any("--refit" in step for step in judged(20, 2).steps)
    assert any("--refit" in step for step in judged(0, 0, adapted=False).steps)
    for done in ({"refit_images": 720}, {"fold": "2/5"}, {"ensemble": ["a", "b"]}):
        assert not any("--refit" in step for step in judged(20, 2, **done).steps)
    assert not any("--refit" in step for step in judged(4, 3, right=62).steps)  # no better than the largest class


def test_several_labels_are_judged_by_the_images_with_every_label_right() -> None:
    low, high = stats.binomtest(57, 120).proportion_ci(method="wilson")
    evaluation = {"exact_matches": 57 / 120, "pictures": 120, "intervals": {"exact_matches": [low, high]}}
    told = verdict({}, {**evaluation, "per_class": PER_CLASS}, adapted=True, cut=0.5)
    assert told is not None and told.judgement == (
        f"Every label is right for 47.5 % of 120 validation images (95 % interval {100 * low:.1f} % to "
        f"{100 * high:.1f} %).",
    )
    assert "perch and mug" in told.steps[0] and "letterbox" in told.steps[1] and len(told.steps) == 4
    on_test = verdict_on_test({**evaluation, "exact_matches": 1.0, "per_class": PER_CLASS}, {})
    assert on_test is not None and len(on_test.steps) == 1  # nothing is weak


def test_the_weakest_are_those_with_the_lowest_f1_that_have_images() -> None:
    assert weakest(PER_CLASS) == ["perch", "mug"]
    assert "perch and mug" in " ".join(judged(20, 2).steps)


@pytest.mark.parametrize(("validation", "words"), [(0.8, "As good as"), (0.95, "Worse than"), (0.6, "Better than")])
def test_on_other_images_it_is_compared_with_the_validation(validation: float, words: str) -> None:
    low, high = stats.binomtest(96, 120).proportion_ci(method="wilson")
    evaluation = {"accuracy": 0.8, "pictures": 120, "intervals": {"accuracy": [low, high]}, "per_class": PER_CLASS}
    told = verdict_on_test(evaluation, {"accuracy": validation})
    assert told is not None and told.judgement[1].startswith(words)
    assert ("differ" in " ".join(told.steps)) is (validation == 0.95)
    seen = verdict_on_test({**evaluation, "trained_on": 3}, {})
    assert seen is not None and "3 images" in seen.steps[0] and len(seen.judgement) == 1
    assert verdict_on_test({"mean_average_precision": 0.9}, {}) is None
