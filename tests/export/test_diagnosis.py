"""Decisions that hang on the rounding of a probability are no difference; all others are."""

from __future__ import annotations

import numpy as np

from visionadapt.export.diagnosis import difference, without_ties


def test_only_a_tie_may_be_decided_otherwise() -> None:
    expected = {
        "probabilities": np.array([[0.7, 0.3], [0.7001, 0.2999], [0.50001, 0.49999], [0.9, 0.1]], np.float32),
        "class_index": np.array([0, 0, 0, 0]),
        "abstain": np.array([True, False, True, False]),
    }
    found = {**expected, "class_index": np.array([0, 0, 1, 0]), "abstain": np.array([False, True, True, False])}
    agreed = without_ties(found, expected, threshold=0.70005)
    assert difference("abstain", found["abstain"], agreed["abstain"]) is None
    assert difference("class_index", found["class_index"], agreed["class_index"]) is None
    for threshold in (0.71, np.nan):
        agreed = without_ties(found, expected, threshold)
        assert difference("abstain", found["abstain"], agreed["abstain"]) is not None
    wrong = {**found, "class_index": np.array([0, 0, 1, 1])}
    agreed = without_ties(wrong, expected, threshold=0.70005)
    assert difference("class_index", wrong["class_index"], agreed["class_index"]) is not None
    missing = {**found, "class_index": np.array([0, 0, 1, 7])}
    assert without_ties(missing, expected, threshold=0.70005) is expected
