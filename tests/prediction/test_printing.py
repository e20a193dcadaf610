"""Daily use of `predict`: lines instead of a table, patterns, and exit codes for rejected images."""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt.console.predictions import event_of, line_of
from visionadapt.console.reporter import HEARTBEAT_SECONDS, Reporter, _Heartbeat
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.prediction import Prediction

from ..conftest import SMALL_BACKBONE, tinted
from ..sources.serving import Reply, serving

Run = Callable[..., tuple[int, str]]
CLASSES = ("blood", "grass", "sky")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = va.classifier(SMALL_BACKBONE, CLASSES, None, "none", 32)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.linear.weight)
    calibration = Calibration(temperature=1.2, threshold=0.2, images=10)
    return va.save(tmp_path_factory.mktemp("runs") / "run", model, va.preprocessing_for(model), calibration=calibration)


def test_a_line_says_what_is_unlike_the_training_images() -> None:
    row = Prediction("a.jpg", "sky", 0.9, (0.04, 0.06, 0.9), labels=("sky",), classes=CLASSES)
    for distance, odd in ((0.99, False), (1.01, True), (float("nan"), False)):
        told = replace(row, distance=distance)
        assert told.odd is odd
        assert ("unlike the training images" in line_of(told)) is odd


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number in range(3):
        tinted((40, 30), number, number).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_image_is_one_line_and_no_file(
    run: Path, folder: Path, visionadapt: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    code, output = visionadapt("predict", run, "0.png")
    own = va.load(run).predict("0.png")
    assert (code, output) == (0, f"0.png  {own.label}  {100 * own.probability:.1f} %\n")
    assert sorted(folder.iterdir()) == before
    _, output = visionadapt("predict", run, "0.png", "--top", 3)
    assert [output.index(name) for name, _ in own.top(3)] == sorted(output.index(name) for name in CLASSES)
    assert visionadapt("predict", run, "0.png", "--top", 0)[0] == 2


def test_patterns_name_files(run: Path, folder: Path, visionadapt: Run) -> None:
    (folder / "deep").mkdir()
    tinted((40, 30), 0, 9).save(folder / "deep" / "[1].png")
    _, output = visionadapt("predict", run, "[01].png", "**/*1*.png")
    assert [line.split()[0] for line in output.splitlines() if "%" in line] == ["0.png", "1.png", "deep/[1].png"]
    assert visionadapt("predict", run, "deep/[1].png")[0] == 0
    code, output = visionadapt("predict", run, "none/*.png")
    assert code == 2 and "no such file" in output


def test_archives_are_classified_without_unpacking(run: Path, folder: Path, visionadapt: Run) -> None:
    with tarfile.open("photos.tar", "w") as tar, zipfile.ZipFile("more.zip", "w") as archive:
        tar.add("0.png", "photos/0.png")
        archive.write("1.png")
    code, output = visionadapt("predict", run, "photos.tar", "*.zip")
    own = va.load(run).predict(["0.png", "1.png"])
    assert code == 0 and f"photos/0.png  {own[0].label}" in output and f"1.png  {own[1].label}" in output
    for paths, words in ((("photos.tar", "0.png"), "a command each"), (("none.tar",), "no such archive"),
                         (("photos.tgz",), "plain .tar")):  # fmt: skip
        code, output = visionadapt("predict", run, *paths)
        assert code == 2 and words in output and output.count("\n") == 1


def test_a_table_or_a_source_in_place_of_images_is_answered_with_data(
    run: Path, folder: Path, visionadapt: Run
) -> None:
    (folder / "rows.csv").write_text("file,note\n0.png,a\n1.png,b\n")
    (folder / "files.txt").write_text("0.png\n1.png\n")
    for path in ("csv(rows.csv, image=file)", "rows.csv"):
        code, output = visionadapt("predict", run, path)
        assert code == 2 and "--data" in output and "csv(rows.csv, image=file" in output
    code, output = visionadapt("predict", run, "files.txt")
    assert code == 2 and "@files.txt" in output
    code, output = visionadapt("predict", run, "0.png", "rows.csv", "files.txt")
    assert code == 0 and "1 classified, 2 rejected" in output


def test_rejected_images_can_fail_the_command(run: Path, folder: Path, visionadapt: Run) -> None:
    for options, code in (
        (("--max-rejected", "25%"), 0),
        (("--max-rejected", "24%"), 1),
        (("--max-rejected", "some"), 2),
        (("--strict", "--out", "a.csv"), 1),
    ):
        assert visionadapt("predict", run, ".", *options)[0] == code, options
        (folder / "a.csv").unlink(missing_ok=True)
    assert "broken.png  rejected: " in visionadapt("predict", run, ".")[1]


def test_every_image_is_an_event(run: Path, folder: Path, visionadapt: Run) -> None:
    events = [json.loads(line) for line in visionadapt("predict", run, ".", "--json", "--quiet")[1].splitlines()]
    assert [event["event"] for event in events] == ["image"] * 4 + ["prediction"]
    own = {Path(row.file).name: row for row in va.load(run).predict(".")}
    for event in events[:-1]:
        row = own[Path(event["file"]).name]
        assert event["label"] == row.label and (event["problem"] is None) == (row.problem is None)
        if row.problem is None:
            assert event["probability"] == round(row.probability, 4)
            assert list(event["probabilities"]) == list(CLASSES)
    assert events[-1] == {"event": "prediction", "out": None, "classified": 3, "rejected": 1, "resumed": 0}


def test_a_table_on_standard_output(run: Path, folder: Path, visionadapt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1.png\n0.png\n")))
    code, output = visionadapt("predict", run, "-", "--out", "-", "--quiet")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["file"] for row in rows] == ["1.png", "0.png"]
    own = va.load(run).predict("1.png")
    exact = dict(zip([f"probability of {name}" for name in CLASSES], own.probabilities, strict=True))
    for name, value in {"probability": own.probability, **exact}.items():
        assert len(rows[0][name].partition(".")[2]) <= 4
        assert float(rows[0][name]) == pytest.approx(value, abs=6e-5)


def test_urls_are_requested_only_where_the_command_line_allows(
    run: Path, folder: Path, visionadapt: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (folder / "1.png").read_bytes()
    with serving({"/cat.png": lambda request: Reply(data)}) as site:
        code, output = visionadapt("predict", run, f"{site.url}/cat.png?key=secret", "0.png", "--private")
        own = va.load(run).predict(["1.png", "0.png"])
        assert code == 0 and f"{site.url}/cat.png  {own[0].label}  {100 * own[0].probability:.1f} %\n" in output
        assert f"0.png  {own[1].label}" in output and "secret" not in output
        asked = len(site.paths)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{site.url}/cat.png\n".encode())))
        code, output = visionadapt("predict", run, "-", "--private", "--strict")
        assert code == 1 and "is not allowed" in output and len(site.paths) == asked


@pytest.mark.parametrize("url", ["http://[::1/x.png", "http://", "https://me:secret@127.0.0.1:9/x.png", "http://a:b/x"])
def test_a_url_that_cannot_be_requested_is_refused(run: Path, visionadapt: Run, url: str) -> None:
    code, output = visionadapt("predict", run, url)
    assert (code, output.count("\n")) == (2, 1) and "cannot be requested" in output and "secret" not in output


def test_a_video_is_rejected_with_what_to_do(run: Path, folder: Path, visionadapt: Run) -> None:
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100))
    code, output = visionadapt("predict", run, "clip.mp4", "--strict")
    line = next(line for line in output.splitlines() if line.startswith("clip.mp4"))
    assert code == 1 and "video" in line and "extract its frames" in line


def test_lines_of_several_labels_and_of_doubt() -> None:
    both = Prediction("a.jpg", "cat", 0.9, (0.9, 0.7, 0.1), labels=("cat", "pet"), classes=("cat", "pet", "dog"))
    assert line_of(both) == "a.jpg  cat  90.0 %  pet  70.0 %"
    assert line_of(Prediction("b", "cat", 0.2, (0.2,), classes=("cat",))) == "b  no class"
    doubt = Prediction("c", "cat", 0.4, (0.4, 0.6), True, labels=("cat",), classes=("cat", "dog"))
    assert line_of(doubt, 1).endswith("abstains")
    assert event_of(Prediction("d", problem="is empty"))["probabilities"] == {}


def test_a_long_job_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    heartbeat = _Heartbeat(Reporter(), "images", lambda: now[0])
    for done in range(1, 5):
        now[0] += HEARTBEAT_SECONDS * 0.6
        heartbeat.beat(done, 4)
    assert capsys.readouterr().err == "images: 2 of 4\n"
