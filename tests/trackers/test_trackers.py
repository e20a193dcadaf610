"""Trackers are told every epoch once, learn no secret, and lose no run."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from visionadapt import trackers
from visionadapt.errors import UsageError
from visionadapt.trackers.tracking import TRACKERS

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0", "--adapter", "none")
SMALL += ("--head", "trained")
OWN = """
import dataclasses, json, os, signal
from pathlib import Path

class Stopping:
    "Notes what it is told; the first time that it hears of epoch 3 it is as if somebody pressed Ctrl-C."
    def start(self, run, settings):
        self.folder = run.folder
        (run.folder / "settings.json").write_text(json.dumps(settings))
        return dataclasses.replace(run, identity="own")
    def epoch(self, metrics):
        if metrics["epoch"] == 3 and not Path("stopped").exists():
            Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGINT)
        with (self.folder / "told").open("a") as file:
            file.write(f"{metrics['epoch']}\\n")
    def finish(self, summary):
        (self.folder / "finished.json").write_text(json.dumps(summary))

class Failing(Stopping):
    def epoch(self, metrics):
        if metrics["epoch"] == 2:
            raise OSError("https://me:word@host/?key=1 has no room")

class Silent(Stopping):
    def start(self, run, settings):
        super().start(run, settings)
"""


def in_tensorboard(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def in_mlflow(run: Path) -> dict[str, list[tuple[int, float]]]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("visionadapt")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", run.name)
    names = [name for name in found.data.metrics if not name.startswith("summary/")]
    histories = {name: client.get_metric_history(found.info.run_id, name) for name in names}
    return {name: [(point.step, point.value) for point in points] for name, points in histories.items()}


def in_trackio(run: Path) -> dict[str, list[tuple[int, float]]]:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("visionadapt")
    logs = [log for log in SQLiteStorage.get_logs("visionadapt", name) if "train_loss" in log]
    return {tag: [(log["step"], log[tag]) for log in logs] for tag in logs[0] if tag not in {"step", "timestamp"}}


def in_wandb(run: Path) -> dict[str, list[tuple[int, float]]]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for data in leveldb_log(path.read_bytes()):
            record = Record.FromString(data)
            items = {(item.key or "/".join(item.nested_key)): item.value_json for item in record.history.item}
            for name, text in items.items():
                if not name.startswith("_"):
                    found.setdefault(name, []).append((record.history.step.num, json.loads(text)))
    return found


def leveldb_log(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: CRC, length and kind before each part, blocks of 32 KiB."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield record
            record = b""


READERS: Mapping[str, Callable[[Path], dict[str, list[tuple[int, float]]]]] = {
    "tensorboard": in_tensorboard,
    "mlflow": in_mlflow,
    "trackio": in_trackio,
    "wandb": in_wandb,
}


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own_trackers.py"
    path.write_text(OWN)
    return path


@pytest.fixture
def own(own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with trackers of the user's own; they leave notes in the working folder."""
    monkeypatch.chdir(tmp_path)
    return own_file


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TRACKERS if importlib.util.find_spec(name) is not None])
def test_a_run_that_goes_on_tells_every_epoch_once(
    name: str, own: Path, visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run, tracker = tmp_path / "run", f"{name},{own}:Stopping"
    tokens = ("--data", tinted_folder(), "--out", run, *SMALL, "--epochs", 4, "--tracker", tracker)
    code, output = visionadapt("train", *tokens)
    assert code == 130, output
    assert json.loads((run / "finished.json").read_text()) is None
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    code, output = visionadapt("train", "--resume", run)
    assert code == 2 and "--tracker" in output, "code that a run folder names is named again"
    code, output = visionadapt("train", "--resume", run, "--tracker", tracker)
    assert code == 0, output
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = READERS[name](run)
    assert set(told) == set(metrics[0]) - {"epoch"}
    for tag in ("train_loss", "val_loss", "val_accuracy", "learning_rate"):
        assert [step for step, _ in told[tag]] == [1, 2, 3, 4]
        assert [value for _, value in told[tag]] == pytest.approx([line[tag] for line in metrics])
    assert (run / "told").read_text().split() == ["1", "2", "3", "4"]
    finished = json.loads((run / "finished.json").read_text())
    assert finished["val_accuracy"] == json.loads((run / "summary.json").read_text())["val_accuracy"]
    assert finished["images/used"] == 20


@pytest.mark.slow
def test_a_tracker_that_fails_loses_no_run(own: Path, visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tokens = ("--data", tinted_folder(), "--out", run, *SMALL, "--epochs", 3)
    code, output = visionadapt("train", *tokens, "--tracker", f"{own}:Failing")
    assert code == 0, output
    assert output.count("failed (") == 1
    assert "OSError: https://…@host/?… has no room" in output
    assert (run / "summary.json").exists() and not (run / "finished.json").exists()
    assert json.loads((run / "trackers.json").read_text())[f"{own}:Failing"]["epochs"] == 1
    code, output = visionadapt("train", "--resume", run, "--tracker", f"{own}:Stopping")
    assert code == 130, "it hears what it missed, and stops as it does the first time"
    code, output = visionadapt("train", "--resume", run, "--tracker", f"{own}:Stopping")
    assert code == 0 and "tracked by" in output
    assert (run / "told").read_text().split() == ["1", "2", "3"]
    assert json.loads((run / "finished.json").read_text())["val_images"] == 4
    code, output = visionadapt("train", "--resume", run, "--tracker", f"{own}:Stopping")
    assert code == 0 and "tracked by" not in output
    (run / "trackers.json").write_text("{")
    (run / "summary.json").unlink()
    code, output = visionadapt("train", "--resume", run, "--tracker", f"{own}:Stopping")
    assert code == 0, output
    assert "failed (JSONDecodeError" in output


def test_a_tracker_that_begins_no_run_is_left_out(own: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    tracking = trackers.Tracking(trackers.named(f"{own}:Silent"), tmp_path, lines.append)
    tracking.start({"epochs": 3}, [])
    tracking.epoch({"epoch": 1})
    tracking.finish({"val": 1.0})
    assert len(lines) == 1 and "TrackedRun" in lines[0]
    assert not (tmp_path / "told").exists() and not (tmp_path / "finished.json").exists()


def test_a_tracker_that_comes_late_hears_all_and_no_secret(own: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    named = trackers.named(f"{own}:Stopping")
    (tmp_path / "stopped").touch()
    tracking = trackers.Tracking(named, tmp_path, lines.append)
    settings = {"data": "sql('postgresql://me:word@host/db', select 1)", "epochs": 3, "rate": None, "nan": float("nan")}
    tracking.start(settings, [{"epoch": 1, "val_loss": None}, {"epoch": 2}])
    tracking.epoch({"epoch": 2})
    tracking.epoch({"epoch": 3})
    tracking.finish({"val": 1.0, "seconds": {"train": 2.0}})
    tracking.finish(None)
    assert (tmp_path / "told").read_text().split() == ["1", "2", "3"]
    stored = json.loads((tmp_path / "settings.json").read_text())
    assert stored == {"data": "sql('postgresql://…@host/db', select 1)", "epochs": 3}
    assert json.loads((tmp_path / "finished.json").read_text()) == {"val": 1.0, "seconds/train": 2.0}
    assert not any("word" in line for line in lines)
    assert not any(b"word" in path.read_bytes() for path in tmp_path.rglob("*.json"))


def test_names_are_checked_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trackers.named(None) == {}
    with pytest.raises(UsageError, match="did you mean 'tensorboard'"):
        trackers.named("tensorbord")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'visionadapt\[mlflow\]'"):
        trackers.named("mlflow")


@pytest.mark.slow
def test_nothing_of_the_environment_reaches_a_run_without_trackers(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, output = visionadapt("train", "--data", tinted_folder(), "--out", run, *SMALL, "--epochs", 1)
    assert code == 0, output
    assert not {"tensorboard", "trackers.json", "mlruns"} & {path.name for path in run.iterdir()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:path", "os:path cannot be made without arguments"),
        ("json:JSONDecodeError", "cannot be made without arguments"),
        ("os:getcwd", "has no start and no epoch and no finish"),
    ],
)
def test_what_is_no_tracker_is_told_at_once(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trackers.named(name)
