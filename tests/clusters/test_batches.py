"""`Classify` on the batches of other engines: the predictions of one process, in the kind of batch that it got."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from visionadapt.clusters.batches import Classify
from visionadapt.prediction import bulk
from visionadapt.runs import saved
from visionadapt.sources import FileSource
from visionadapt.sources.opening import manifest_of

pytestmark = pytest.mark.slow

COLUMNS = ["label", "probability", "abstain", "distance", "problem", "probabilities"]


@pytest.fixture(scope="module")
def classify(run: Path) -> Classify:
    return Classify(run, "image")


def test_batches_of_any_size_have_the_bits_of_one_table(
    classify: Classify, run: Path, images: Path, tmp_path: Path
) -> None:
    predictor, rows = saved.load(run), manifest_of(FileSource(images))
    bulk.predict_into(tmp_path / "whole.parquet", predictor, rows, "")
    whole = parquet.read_table(tmp_path / "whole.parquet").to_pandas()
    files = [images / name for name in whole["file"]]
    for size in (3, 64, len(files)):
        frames = []
        for start in range(0, len(files), size):
            batch = pd.DataFrame({"image": [path.read_bytes() for path in files[start : start + size]]})
            frames.append(classify(batch))
        found = pd.concat(frames, ignore_index=True)
        assert list(found) == COLUMNS
        for name in COLUMNS:
            for ours, theirs in zip(found[name], whole[name], strict=True):
                assert np.array_equal(ours, theirs) or (pd.isna(ours) and pd.isna(theirs)), name
    assert whole["problem"].notna().sum() == 1


def test_a_mapping_gives_a_mapping_with_what_else_it_has(classify: Classify, run: Path, images: Path) -> None:
    path = images / "blood" / "0.png"
    batch = {"id": np.arange(2), "image": np.array([str(path), str(images / "grass" / "broken.png")], object)}
    found = classify(batch)
    assert list(found) == ["id", *COLUMNS]
    assert found["label"][0] in {"blood", "grass"}
    assert found["label"][1] is None
    assert found["probabilities"][1] is None
    assert sum(found["probabilities"][0]) == pytest.approx(1)
    assert "image" in Classify(run, "image", keep=True)(batch)
