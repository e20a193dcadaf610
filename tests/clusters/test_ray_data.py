"""A Ray cluster of several node processes, one of which is killed: the tables are those of one process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from visionadapt.clusters.batches import Classify
from visionadapt.clusters.shard_work import PredictShards
from visionadapt.clusters.table import compute_table
from visionadapt.errors import UsageError
from visionadapt.prediction import bulk
from visionadapt.prediction.embedding import read_embedding
from visionadapt.prediction.target import Target
from visionadapt.runs import saved
from visionadapt.runs.options import ClusterOptions
from visionadapt.sources import FileSource
from visionadapt.sources.opening import manifest_of

Run = Callable[..., tuple[int, str]]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that computes, and a further node."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "1000", "RAY_worker_niceness": "0"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        cluster = started()
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def started(tries: int = 5) -> Any:
    """Start the cluster; Ray gives a node half a minute, which is too little while this machine is busy."""
    from ray.cluster_utils import Cluster

    for left in reversed(range(tries)):
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=1, include_dashboard=False)
            cluster.doomed = cluster.add_node(num_cpus=1)
        except Exception:
            cluster.shutdown()
            if not left:
                raise
        else:
            return cluster
    raise AssertionError("unreachable")


@pytest.fixture(scope="module")
def whole(run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of one process."""
    out = tmp_path_factory.mktemp("whole") / "whole.parquet"
    bulk.predict_into(out, saved.load(run), manifest_of(FileSource(images)), "")
    return out


def test_a_killed_node_costs_no_row_and_doubles_none(
    cluster: Any, run: Path, images: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table.parquet"
    work = PredictShards(Target(str(out)), bulk.model_hash(run, saved.load(run)), run=run)
    told: list[int] = []

    def kill_once(done: int, total: int) -> None:
        if not told:
            cluster.remove_node(cluster.doomed, allow_graceful=False)
        told.append(done)

    outcome = compute_table(work, manifest_of(FileSource(images)), ClusterOptions("ray", shards=9), progress=kill_once)
    assert (outcome.classified, outcome.rejected, outcome.resumed) == (270, 1, 0)
    assert told[-1] == 271
    assert len(told) == 9
    assert parquet.read_table(out).equals(parquet.read_table(whole))
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_the_commands_resume_by_shard_and_refuse_in_one_line(
    cluster: Any, visionadapt: Run, run: Path, images: Path, whole: Path, tmp_path: Path
) -> None:
    predict = ["predict", run, images, "--engine", "ray", "--shards", "3", "--out"]
    out = tmp_path / "table.parquet"
    code, output = visionadapt(*predict, out, "--keep-shards")
    assert code == 0, output
    second = tmp_path / "table-00002-of-00003.parquet"
    second.unlink()
    kept = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.parquet"))]
    code, output = visionadapt(*predict, out)
    assert code == 0, output
    assert "before the interruption" in output
    assert len(kept) == 2
    assert parquet.read_table(out).equals(parquet.read_table(whole))
    assert visionadapt(*predict, out)[0] == 2
    embed = ["embed", images, "--run", run, "--out"]
    assert visionadapt(*embed, tmp_path / "one.parquet")[0] == 0
    code, output = visionadapt(*embed, tmp_path / "three.parquet", "--engine", "ray", "--shards", "3")
    assert code == 0, output
    one, three = (read_embedding(tmp_path / f"{name}.parquet") for name in ("one", "three"))
    assert one.keys == three.keys
    assert one.facts == three.facts
    np.testing.assert_array_equal(one.vectors, three.vectors)


def test_a_shard_that_no_machine_can_compute_ends_it_in_one_line(
    cluster: Any, run: Path, images: Path, tmp_path: Path
) -> None:
    work = PredictShards(Target(str(tmp_path / "table.csv")), "another model", run=run)
    with pytest.raises(UsageError, match="machines of the cluster have different models"):
        compute_table(work, manifest_of(FileSource(images)), ClusterOptions("ray", shards=1))


def test_classify_is_for_map_batches(cluster: Any, run: Path, images: Path, whole: Path) -> None:
    import ray.data

    names = parquet.read_table(whole, columns=["file"])["file"].to_pylist()[:40]
    rows = [{"id": place, "path": str(images / name)} for place, name in enumerate(names)]
    dataset = ray.data.from_items(rows, override_num_blocks=4).map_batches(
        Classify, fn_constructor_args=(run, "path"), batch_size=8, compute=ray.data.ActorPoolStrategy(size=1)
    )
    found = {row["id"]: row for row in dataset.take_all()}
    expected = parquet.read_table(whole).slice(0, 40).to_pylist()
    assert sorted(found) == list(range(40))
    for place, row in found.items():
        for name in ("label", "probability", "problem", "probabilities"):
            assert row[name] == expected[place][name]
