"""Runs that share a backbone give what each gives alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import visionadapt as va
from tests.export.conftest import saved_run
from visionadapt.errors import UsageError
from visionadapt.serve.computing import computing
from visionadapt.serve.runs import Item, ServedRuns, names_of, open_runs

from .conftest import ADAPTERS, LIMITS, image

pytestmark = pytest.mark.slow


def test_runs_on_one_backbone_share_it_and_agree_with_each_alone(served: ServedRuns, folders: dict[str, Path]) -> None:
    assert served.shared == [tuple(ADAPTERS)]
    items = [Item(image(n), str(n), tuple(ADAPTERS)[n % 3 : n % 3 + 2]) for n in range(11)]
    answers = served.compute([served.read(item) for item in items])
    alone = {name: va.load(folders[name]) for name in ADAPTERS}
    for item, found in zip(items, answers, strict=True):
        assert [answer.run for answer in found] == list(item.runs)
        for answer in found:
            own = alone[answer.run].predict(item.data)
            assert answer.prediction.label == own.label
            assert answer.prediction.probabilities == pytest.approx(own.probabilities, abs=1e-5)
            assert answer.prediction.distance == pytest.approx(own.distance, abs=1e-4)


def test_what_cannot_be_shared_is_computed_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    stem = saved_run(tmp_path / "full", adapter="full")
    predictors = open_runs([str(folders["probe"]), str(stem)], "cpu", None)
    assert [part.names for part in computing(predictors)] == [("probe",), ("full",)]
    served = ServedRuns(predictors, LIMITS.max_pixels)
    (found,) = served.compute([served.read(Item(image(1), "", ("full",)))])
    assert found[0].prediction.probabilities == pytest.approx(va.load(stem).predict(image(1)).probabilities, abs=1e-4)


def test_a_run_s_outputs_do_not_depend_on_the_batch(folders: dict[str, Path]) -> None:
    (part,) = computing(open_runs([str(folders["lora"])], "cpu", None))
    pixels = torch.randint(0, 256, (40, 3, 64, 64), dtype=torch.uint8)
    features, logits = part.outputs(pixels, {"lora": range(40)})["lora"]
    assert features.shape[0] == logits.shape[0] == 40
    for row in (0, 7, 39):
        torch.testing.assert_close(
            part.outputs(pixels, {"lora": [row]})["lora"][1][0], logits[row], rtol=1e-4, atol=1e-4
        )


def test_names_are_the_shortest_ends_of_paths_that_differ() -> None:
    assert names_of(["a/best", "b/last"]) == {"best": "a/best", "last": "b/last"}
    assert names_of(["a/best", "b/best"]) == {"a/best": "a/best", "b/best": "b/best"}
    with pytest.raises(UsageError, match="given twice"):
        names_of(["a/best", "a/../a/best"])
