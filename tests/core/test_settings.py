"""Training settings are checked when they are made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import UsageError


@pytest.mark.parametrize(
    ("name", "lowest", "highest", "below", "above"),
    [
        ("epochs", 1, None, 0, None),
        ("batch_size", 1, None, 0, None),
        ("learning_rate", 1e-9, 1e9, 0.0, math.inf),
        ("head_learning_rate", 1e-9, 1e9, -1e-3, math.inf),
        ("dropout", 0.0, 0.99, -0.1, 1.0),
        ("weight_decay", 0.0, 1e9, -1e-9, math.inf),
        ("warmup", 0.0, 0.99, -0.1, 1.0),
        ("label_smoothing", 0.0, 0.99, -0.1, 1.0),
        ("views", 1, None, 0, None),
        ("accumulate", 1, None, 0, None),
        ("clip", 0.0, 1e9, -0.1, None),
        ("patience", 0, None, -1, None),
        ("workers", -1, None, -2, None),
        ("seed", 0, 2**63 - 1, -1, 2**63),
        ("task", "auto", "multilabel", "multi-label", "several"),
        ("loss", "auto", "focal", "focus", ""),
        ("sampling", "every", "balanced", "all", ""),
        ("metric", "auto", "macro_f1", "f1", ""),
        ("class_weights", "none", '{"cat": 2.5}', "Balanced", "balance"),
        ("precision", "auto", "float16", "fp16", ""),
    ],
)
def test_what_is_in_and_out_of_range(name: str, lowest: Any, highest: Any, below: Any, above: Any) -> None:
    for value in (lowest, highest):
        if value is not None:
            assert getattr(TrainingSettings(**{name: value}), name) == value
    for value in (below, above):
        if value is not None:
            with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} {value} is out of range; see --help"):
                TrainingSettings(**{name: value})


@pytest.mark.parametrize(
    "item", [i for i in dataclasses.fields(TrainingSettings) if i.type == "float"], ids=lambda item: item.name
)
def test_what_is_no_number_is_out_of_range(item: dataclasses.Field[Any]) -> None:
    with pytest.raises(UsageError, match="nan is out of range"):
        TrainingSettings(**{item.name: math.nan})


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingSettings().epochs = 3  # type: ignore[misc]
    with pytest.raises(UsageError):
        dataclasses.replace(TrainingSettings(), epochs=0)
