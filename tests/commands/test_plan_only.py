"""`--plan` tells and writes no run; what is planned holds for pipelines of one's own and for runs that go on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0", "--device", "cpu")
PIPELINE = "def half(picture):\n    return picture // 2\n"


@pytest.fixture
def own_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a pipeline of the user's own."""
    (tmp_path / "own_pipeline.py").write_text(PIPELINE)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_pipeline:half"


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("own", [False, True], ids=["preset", "own pipeline"])
def test_a_plan_makes_no_run_folder(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, own_pipeline: str, own: bool
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    augment = own_pipeline if own else "light"
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--augment", augment, "--plan")
    assert code == 0, output
    assert "views: 4 augmented" in output
    assert not run.exists()


def test_a_pipeline_of_one_s_own_is_trained_with(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, own_pipeline: str, own_cache: Path
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--augment", own_pipeline, "--epochs", 1)
    assert code == 0, output
    assert json.loads((run / "summary.json").read_text())["prefix_forwards"] == 16 + 4
    assert list(run.glob("cache/*/x.bin"))
    assert [path.name for path in own_cache.glob("*.json")] == ["measurements.json"]


def test_the_plan_of_a_run_that_could_go_on_is_told_and_nothing_else(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--epochs", 1, "--keep", "nothing")
    assert code == 0, output
    (run / "summary.json").unlink()
    before = files(run)
    code, output = visionadapt("train", "--resume", run, "--plan")
    assert code == 0, output
    assert "frozen:" in output
    assert files(run) == before


def test_the_limit_of_the_cache_can_be_another_one_when_a_run_goes_on(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    visionadapt("train", "--data", tinted_folder("other"), "--out", tmp_path / "other-run", *SMALL, "--epochs", 1)
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--epochs", 1, "--adapter", "none")
    assert code == 0, output
    (run / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", run, "--cache-limit", "1KB")
    assert code == 0, output
    assert "removed from the cache: test_efficientnet" in output


def test_a_run_goes_on_only_where_its_device_is(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--epochs", 1)
    assert code == 0, output
    (run / "summary.json").unlink()
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps({**plan, "device": "cuda:7", "digest": None}))
    code, output = visionadapt("train", "--resume", run)
    assert (code, output.count("\n")) == (2, 1)
    assert "began on cuda:7, which this machine does not have" in output


def test_the_data_may_be_named_without_its_option(visionadapt: Run, tinted_folder: Make) -> None:
    data = tinted_folder()
    (code, named), (same, unnamed) = (
        visionadapt("train", *words, *SMALL, "--plan") for words in (("--data", data), (data,))
    )
    plans = [output.partition("expected:")[0] for output in (named, unnamed)]  # times are measured anew
    assert code == same == 0 and plans[0] == plans[1]
    code, output = visionadapt("train", data, "--data", data, *SMALL, "--plan")
    assert code == 2 and "--data" in output


@pytest.mark.parametrize("augment", ["none", "light"])
def test_a_plan_knows_what_is_cached_already(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, own_cache: Path, augment: str
) -> None:
    data, options = tinted_folder(), (*SMALL, "--augment", augment, "--views", 2, "--epochs", 2, "--adapter", "none")

    def planned() -> str:
        code, output = visionadapt("train", "--data", data, "--out", tmp_path / "run", *options, "--plan")
        assert code == 0, output
        return output

    assert "already" not in planned()
    assert not list(own_cache.glob("*/")), "a plan makes no space in the cache"
    assert visionadapt("train", "--data", data, "--out", tmp_path / "first", *options)[0] == 0
    before = files(own_cache)
    output = planned()
    assert "about 100 % of it is there already" in output
    assert "reading 0.0 s, frozen part 0.0 s" in output
    assert files(own_cache) == before
    for path in sorted(data.glob("*/*"))[::2]:
        path.write_bytes(path.read_bytes() + b"another file")
    share = re.search(r"about (\d+) % of it is there already", planned())
    assert share is not None and 20 < int(share[1]) < 80
