"""What a person sees: a live view that leaves nothing behind, plain lines in a log, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from visionadapt.__main__ import app
from visionadapt.commands import shell, training_run
from visionadapt.console.live import TrainingView, duration
from visionadapt.console.reporter import Reporter
from visionadapt.console.summaries import closing_rows, rounded
from visionadapt.core.settings import TrainingSettings
from visionadapt.runs.options import RunOptions

from ..conftest import SMALL_BACKBONE
from ..terminal import LINES, terminal

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0", "--adapter", "none")
SMALL += ("--head", "trained")
METRICS = {"train_loss": 0.5, "val_loss": 0.25, "val_accuracy": 0.875, "seconds": 2.0, "images_per_second": 100.0}


@pytest.fixture
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def train(data: Path, run: Path, *more: object) -> int:
    return shell.run(app, ["train", "--data", str(data), "--out", str(run), *SMALL, *map(str, more)])


@pytest.mark.usefixtures("_colours")
def test_the_summary_fits_a_screen_and_the_view_is_gone(
    tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal() as shown:
        monkeypatch.setattr(sys, "stderr", shown.file)
        assert train(tinted_folder(), tmp_path / "run", "--epochs", 3) == 0
        shown.close()
    lines = shown.lines()
    title = next(place for place, line in enumerate(lines) if line.strip() == "trained")
    assert "╰" in lines[-1] or "└" in lines[-1]
    assert len(lines) - title < LINES
    head = next(place for place, line in enumerate(lines) if line.split()[:1] == ["epoch"])
    assert [line.split()[0] for line in lines[head + 1 : head + 4]] == ["1", "2", "3"]
    assert sum("kept" in line for line in lines[head + 1 : title]) == 1
    text = "\n".join(lines)
    assert "validation accuracy" in text and "95 %" in text and "class blood" in text
    assert " left" not in text and "images/s" not in text
    assert shown.raw.count(b"\x1b[?25l") == shown.raw.count(b"\x1b[?25h") > 0
    assert not shown.screen.cursor.hidden


@pytest.mark.usefixtures("_colours")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # interrupted between opening a file and `with`
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_view_leaves_the_terminal_as_it_was(
    number: signal.Signals, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = ("run folder:", "val accuracy", "/100000")
    seen: list[list[str]] = []
    over = threading.Event()
    with terminal() as shown:

        def interrupt() -> None:
            shown.wait_for("images/s", *live)
            seen.append(shown.lines())
            if not over.is_set():
                os.kill(os.getpid(), number)

        monkeypatch.setattr(sys, "stderr", shown.file)
        watcher = threading.Thread(target=interrupt)
        watcher.start()
        code = train(tinted_folder(), tmp_path / "run", "--epochs", 100_000, "--patience", 0)
        over.set()
        watcher.join()
        shown.close()
    assert code == 128 + number
    while_live = "\n".join(seen[0])
    assert all(word in while_live for word in live)
    assert len(seen[0]) <= LINES
    text = "\n".join(shown.lines())
    assert "go on with --resume" in text
    assert text.endswith("error: interrupted" if number == signal.SIGINT else "error: terminated")
    assert " left" not in text and "images/s" not in text
    assert not shown.screen.cursor.hidden


def test_json_is_all_that_standard_output_has(
    tinted_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tinted_folder(), tmp_path / "run"
    assert train(data, run, "--epochs", 2, "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["plan", "epoch", "epoch", "summary"]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [{name: event[name] for name in metrics[0]} for event in events[1:3]] == metrics
    summary = json.loads((run / "summary.json").read_text())
    assert events[3] == {"event": "summary", "run": str(run), **summary}
    assert (events[0]["settings"]["epochs"], events[0]["pictures"]) == (2, {"train": 16, "val": 4})
    stored = json.loads((run / "plan.json").read_text())
    assert events[0]["plan"] == {name: value for name, value in stored.items() if name != "digest"}

    assert shell.run(app, ["train", "--resume", str(run), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{run}\n", "")

    out = str(tmp_path / "predictions.csv")
    for tokens, name in (
        (["evaluate", str(run), "--data", str(data), "--workers", "0"], "evaluation"),
        (["predict", str(run), str(data), "--out", out, "--workers", "0"], "prediction"),
    ):
        assert shell.run(app, [*tokens, "--json", "--quiet"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        assert [json.loads(line)["event"] for line in captured.out.splitlines()] == [name]


def test_a_log_has_a_line_for_each_epoch_and_its_counts_agree(
    tinted_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tinted_folder()
    next(data.glob("*/*")).write_bytes(b"no image")
    assert train(data, tmp_path / "run", "--epochs", 3) == 0
    lines = capsys.readouterr().err.splitlines()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    train_images, val_images = summary["train_images"], summary["val_images"]
    assert train_images + val_images == 19
    epochs = [line for line in lines if re.match(r"epoch [123]/3: ", line)]
    assert len(epochs) == 3
    assert all(re.search(r"kept so far: (epoch [123]|the solved head)$", line) for line in epochs)
    assert any(line.startswith(f"training images: {train_images}") for line in lines)
    assert any(line.startswith(f"validation images: {val_images}") for line in lines)
    assert not any(line.startswith(("frozen:", "engine:", "batches:")) for line in lines)
    assert any(line.startswith(f"data: {data}, ") and "2 classes" in line for line in lines)
    assert train(data, tmp_path / "other", "--epochs", 1, "--verbose") == 0
    assert {"frozen", "engine", "batches"} <= {line.partition(":")[0] for line in capsys.readouterr().err.splitlines()}


def test_the_words_of_a_duration() -> None:
    assert [rounded(seconds) for seconds in (0, 12, 47, 61, 150, 3_000, 9_000)] == [
        *("5 seconds", "15 seconds", "50 seconds", "a minute", "2 minutes", "50 minutes", "2.5 hours"),
    ]


def test_every_step_is_told(tinted_folder: Make, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    class Noting(Reporter):
        @contextmanager
        def training(self, *planned: Any) -> Iterator[Any]:
            with super().training(*planned) as follower:
                follower.step = lambda done, total: steps.append((done, total))
                yield follower

    options = RunOptions(str(tinted_folder()), str(tmp_path / "run"), backbone=SMALL_BACKBONE, weights="none")
    options = dataclasses.replace(options, image_size=64, adapter="none")
    training_run.train(options, TrainingSettings(epochs=2, batch_size=6, workers=0, head="trained"), Noting(quiet=True))
    assert steps == [(1, 3), (2, 3), (3, 3)] * 2


def test_a_mistake_is_told_though_all_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "missing", tmp_path / "run", "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(json=True).event("epoch", {"loss": float("nan"), "list": [float("inf"), 1.5], "name": "\udcff é"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"event": "epoch", "loss": None, "list": [None, 1.5], "name": "\udcff é"}
    assert out.isascii()


def test_nobody_who_reads_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    reporter = Reporter(json=True)
    reporter.event("epoch", {"epoch": 1})
    reporter.event("epoch", {"epoch": 2})
    sys.stdout.close()


def test_the_time_left_is_the_pace_s() -> None:
    now = [100.0]
    view = TrainingView({}, 10, [METRICS | {"epoch": 1}, METRICS | {"epoch": 2}], lambda: now[0])
    assert view.seconds_left() is None
    now[0] += 5
    view.step(1, 2)
    assert view.seconds_left() == 75  # half an epoch took 5 s, and 7.5 are to come
    now[0] += 5
    view.epoch(METRICS | {"epoch": 3}, 3)
    assert view.seconds_left() == 70
    assert [duration(seconds) for seconds in (0, 59.6, 3599.4, 86_400)] == ["0:00", "1:00", "59:59", "24:00:00"]


def test_of_many_classes_the_weakest_are_told() -> None:
    classes = {f"c{i}": {"recall": i / 20, "precision": None, "support": 9, "intervals": {}} for i in range(20)}
    summary = {
        "val_loss": 0.1,
        "val_accuracy": 0.8,
        "best_epoch": 2,
        "val_rows": 10,
        "val_rejected": 1,
        "majority_accuracy": None,
        "probe_accuracy": None,
        "trainable_parameters": 1,
        "total_parameters": 4,
        "images": {"used": 9},
        "seconds": {"train": 1.0},
    }
    rows = closing_rows(summary, {"per_class": classes, "intervals": {"accuracy": [0.5, 0.9]}})
    assert [name for name in rows if name.startswith("class")] == ["class c0", "class c1", "class c2"]
    assert (
        rows["validation accuracy"] == "80.0 % (95 % interval 50.0 % to 90.0 %) on 9 of 10 rows, 1 rejected (epoch 2)"
    )
