"""Run folders listed and compared: what each is worth, whether it can go on, and where settings differ."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from visionadapt.commands import shell
from visionadapt.errors import RunError
from visionadapt.metrics.intervals import share
from visionadapt.runs.__main__ import app
from visionadapt.runs.overview import (
    RunOverview,
    State,
    by_data,
    differences,
    frontier,
    overview,
    overviews,
    settings_of,
)
from visionadapt.train import app as train

from ..conftest import SMALL_BACKBONE, tinted

SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0", "--adapter", "none")
SMALL += ("--head", "trained")
LATER = {"first": 1.6e9, "second": 1.7e9}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` and `below/second`, which differ in epochs and seed, and copies of them to which something happened."""
    root = tmp_path_factory.mktemp("overview")
    data, runs = root / "data", root / "runs"
    for label, name in enumerate(("blood", "grass")):
        (data / name).mkdir(parents=True)
        for number in range(8):
            tinted((60, 60), label + (number == 3), 100 * label + number).save(data / name / f"{number}.png")
    for name, more in {"first": ("--epochs", "2"), "below/second": ("--epochs", "3", "--seed", "1")}.items():
        places = ("--data", str(data), "--out", str(runs / name), "--cache", str(root / "cache"))
        tokens = [*places, *SMALL, *more, "--quiet", "--val", "0.25"]
        assert shell.run(train, tokens) == 0
        os.utime(runs / name / "config.json", (LATER[Path(name).name],) * 2)
    for name in ("stopped", "cut", "headless", "broken", ".hidden"):
        shutil.copytree(runs / "first", runs / name)
    (runs / "stopped" / "summary.json").unlink()
    (runs / "stopped" / "model.safetensors").unlink()
    model = (runs / "cut" / "model.safetensors").read_bytes()
    (runs / "cut" / "model.safetensors").write_bytes(model[:-1])
    (runs / "headless" / "config.json").unlink()
    (runs / "broken" / "summary.json").write_text('{"val_accuracy": 1')
    (runs / "foreign").mkdir()
    (runs / "foreign" / "config.json").write_text("{}")
    (runs / "saved").mkdir()
    (runs / "saved" / "config.json").write_text(json.dumps({"format": 1, "backbone": "resnet18", "adapter": "none"}))
    shutil.copy(runs / "first" / "model.safetensors", runs / "saved")
    return runs


@pytest.mark.slow
def test_every_run_is_found_with_its_state(runs: Path) -> None:
    found = {str(run.folder.relative_to(runs)): run for run in overviews(runs)}
    assert {name: run.state for name, run in found.items()} == {
        "first": "finished",
        "below/second": "finished",
        "saved": "finished",
        "stopped": "unfinished",
        "cut": "damaged",
        "headless": "damaged",
        "broken": "damaged",
    }
    assert found["cut"].problem is not None and "model.safetensors" in found["cut"].problem
    assert found["headless"].problem is not None and "config.json" in found["headless"].problem
    assert found["broken"].problem is not None and "summary.json" in found["broken"].problem
    assert (found["saved"].backbone, found["saved"].value) == ("resnet18", None)


def test_the_candidates_of_a_search_are_listed_where_it_is_named(runs: Path, tmp_path: Path) -> None:
    search = tmp_path / "searches" / "best"
    shutil.copytree(runs / "first", search)
    shutil.copytree(runs / "first", search / "candidates" / "1")
    assert [run.folder for run in overviews(search.parent)] == [search]
    assert [run.folder for run in overviews(search)] == [search, search / "candidates" / "1"]


def test_figures_are_those_of_the_run(runs: Path) -> None:
    run, summary = overview(runs / "first"), json.loads((runs / "first" / "summary.json").read_text())
    assert (run.figure, run.value) == ("val_accuracy", summary["val_accuracy"])
    right = round(summary["val_accuracy"] * summary["val_images"])
    assert run.interval == pytest.approx(share(right, summary["val_images"]))
    assert (run.epochs, run.planned, run.backbone, run.adapter) == (2, 2, SMALL_BACKBONE, "none")
    assert run.seconds == pytest.approx(sum(summary["seconds"].values()))
    assert run.began == datetime.fromtimestamp(LATER["first"])
    metrics = [json.loads(line) for line in (runs / "first" / "metrics.jsonl").read_text().splitlines()]
    stopped = overview(runs / "stopped")
    assert stopped.value == max(line["val_accuracy"] for line in metrics)
    assert stopped.seconds == pytest.approx(sum(line["seconds"] for line in metrics))
    assert stopped.interval is None


def test_the_best_comes_first(runs: Path) -> None:
    values = [-1.0 if run.value is None else run.value for run in overviews(runs)]
    assert values == sorted(values, reverse=True)


def test_only_what_differs_is_told(runs: Path) -> None:
    pair = [overview(runs / "first"), overview(runs / "below" / "second"), overview(runs / "headless")]
    assert differences(pair) == {"epochs": {"2": [0], "3": [1]}, "seed": {"0": [0], "1": [1]}}
    assert differences(pair[:1]) == {}


def test_the_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(app, [str(runs)]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("data: ")
    assert lines[1].split() == ["run", "validation", "epochs", "seconds", "began", "state"]
    first = next(line for line in lines if " first " in line)
    assert "accuracy" in first and "2/2" in first and first.endswith("finished")
    assert next(line for line in lines if " stopped " in line).endswith("--resume")
    assert any(line.startswith("seed: ") and "0 (" in line and "1 (" in line for line in lines)
    assert not any(line.startswith("learning-rate") for line in lines)

    assert shell.run(app, [str(runs), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["run"] * 7
    assert shell.run(app, [str(runs), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == [event["folder"] for event in events]

    assert shell.run(app, [str(runs / "foreign")]) == 0
    assert capsys.readouterr().out.startswith("no run folders in")
    assert shell.run(app, [str(runs / "missing")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_run_is_repeated_from_its_toml(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "below" / "second"
    assert shell.run(app, [str(run), "--toml"]) == 0
    (tmp_path / "run.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    again = tmp_path / "again"
    assert shell.run(train, ["--config", str(tmp_path / "run.toml"), "--out", str(again), "--quiet"]) == 0
    config, repeated = (json.loads((folder / "config.json").read_text()) for folder in (run, again))
    assert {**repeated["options"], "out": None} == {**config["options"], "out": None}
    assert repeated["settings"] == config["settings"]
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["saved", "headless", "foreign", "missing"])
def test_what_cannot_be_repeated_is_told(runs: Path, name: str) -> None:
    with pytest.raises(RunError):
        settings_of(runs / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, b"[" * 100_000) for name in ("config.json", "summary.json", "metrics.jsonl")),
        ("summary.json", b'{"val_accuracy": "high", "seconds": {}}'),
        ("summary.json", b'{"val_accuracy": 1' + b"0" * 400 + b', "seconds": {}}'),
        ("summary.json", b'{"val_accuracy": [1], "seconds": {}}'),
        ("model.safetensors", b'\x1a\0\0\0\0\0\0\0{"a": {"data_offsets": [1]}'),
        ("validation/evaluation.json", b'{"intervals": {"accuracy": [1]}}'),
        *((name, None) for name in ("config.json", "summary.json", "metrics.jsonl", "model.safetensors")),
    ],
)
def test_whatever_lies_in_a_run_folder_the_others_are_listed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    for copy in ("good", "hostile"):
        shutil.copytree(runs / "first", tmp_path / copy)
    path = tmp_path / "hostile" / name
    path.unlink()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert shell.run(app, [str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "good" in output and "damaged: " in output


def test_settings_of_any_kind_are_listed(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "first", tmp_path / "first")
    path = tmp_path / "first" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "options": {**config["options"], "backbone": ["a"], "adapter": {"b": 1}}}))
    assert shell.run(app, [str(tmp_path)]) == 0
    assert "adapter: {'b': 1}" in capsys.readouterr().out


def test_runs_are_grouped_by_their_data_and_those_that_none_beats_in_less_time_are_marked() -> None:
    def run(name: str, value: float | None, seconds: float, data: str = "a", state: State = "finished") -> RunOverview:
        return RunOverview(Path(name), state, value=value, seconds=seconds, settings={"data": data})

    fast, slow, worse, best = run("fast", 0.8, 5), run("slow", 0.8, 9), run("worse", 0.7, 20), run("best", 0.9, 60)
    stopped, other = run("stopped", 0.95, 3, state="unfinished"), run("other", 0.5, 1, "b")
    assert frontier([best, slow, fast, worse, stopped]) == [fast, best]
    grouped = by_data([stopped, best, fast, slow, worse, other])
    assert grouped == {"a": [best, fast, slow, worse, stopped], "b": [other]}


def test_the_list_names_the_data_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(app, [str(runs)]) == 0
    printed = capsys.readouterr().out
    assert printed.count(str(runs.parent / "data")) == 1 and "best" in printed
