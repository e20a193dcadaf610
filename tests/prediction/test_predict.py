"""Prediction of any number of images: files, lists and sources into a table, and resuming an interrupted attempt."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import visionadapt as va
from visionadapt.errors import RunError, UsageError
from visionadapt.prediction import bulk
from visionadapt.prediction.tables import check_suffix
from visionadapt.sources import FileSource

from .. import forked
from ..conftest import SMALL_BACKBONE, tinted
from ..forked import Command

Run = Callable[..., tuple[int, str]]
CLASSES = ("blood", "=cmd()", "<b>\nשלום\u202e")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was not trained, with a random head."""
    model = va.classifier(SMALL_BACKBONE, CLASSES, None, "none", 32)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.linear.weight)
    return va.save(tmp_path / "run", model, va.preprocessing_for(model), weights="none")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """150 images, some of them broken or with odd names."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(150):
        tinted((20 + number % 7, 24), number, number).save(folder / f"{number:03d}.png")
    for number in (3, 40, 41, 42, 149):
        (folder / f"{number:03d}.png").write_bytes(b"no image")
    for name in ("=1+1.png", "line\nbreak.png", "\u202egnp.exe.png"):
        tinted((30, 30), 0, 1).save(folder / name)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def manifest_of(folder: Path) -> va.Manifest:
    source = FileSource(folder)
    return va.Manifest(source, source)


@pytest.mark.slow
def test_the_three_kinds_of_table_agree(visionadapt: Run, run: Path, images: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        code, output = visionadapt("predict", run, images, "--out", tmp_path / f"p.{suffix}")
        assert code == 0, output
        assert "148 classified, 5 rejected" in output
    predictor, files = va.load(run), sorted(images.iterdir())
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    cells = rows(tmp_path / "p.csv")
    table = parquet.read_table(tmp_path / "p.parquet")
    assert json.loads(table.schema.metadata[b"classes"]) == list(CLASSES)
    assert list(cells[0]) == [
        *("file", "label", "probability", "abstain", "distance", "problem"),
        *(f"probability of {name}" for name in CLASSES),
    ]
    assert {line["file"] for line in lines} == {str(file) for file in files}
    for line, row, record in zip(lines, cells, table.to_pylist(), strict=True):
        assert [record[name] for name in record if name != "probabilities"] == [
            line[name] for name in line if name != "probabilities"
        ]
        assert row["file"] == line["file"], "no path here begins a formula"
        assert (row["problem"] or None) == line["problem"]
        if line["problem"]:
            assert (row["label"], row["probability"], line["probabilities"]) == ("", "", None)
            continue
        assert row["label"].removeprefix("'") == line["label"]
        assert record["probabilities"] == list(line["probabilities"].values())
        assert [float(row[f"probability of {name}"]) for name in CLASSES] == record["probabilities"]
    one = predictor.predict(files[7])
    line = next(line for line in lines if line["file"] == one.file)
    assert line["label"] == one.label
    assert tuple(line["probabilities"].values()) == pytest.approx(one.probabilities, abs=1e-5)


def test_names_are_harmless_and_keep_their_meaning(
    visionadapt: Run, run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    names = ("=1+1.png", "line\nbreak.png", "\u202egnp.exe.png")
    for suffix in ("csv", "jsonl"):
        assert visionadapt("predict", run, *names, "--out", tmp_path / f"p.{suffix}")[0] == 0
    assert [row["file"] for row in rows(tmp_path / "p.csv")] == [f"'{names[0]}", *names[1:]]
    assert not any(row["label"].startswith("=") for row in rows(tmp_path / "p.csv"))
    assert "=cmd()" not in {cell.strip() for cell in (tmp_path / "p.csv").read_text().split(",")}
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["file"] for line in lines] == list(names)


def test_lists_of_files(
    visionadapt: Run, run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    (tmp_path / "list.txt").write_bytes(b"009.png\r\ngone.png\n\n001.png\n009.png")
    code, output = visionadapt("predict", run, f"@{tmp_path}/list.txt", "005.png", "--out", tmp_path / "p.csv")
    assert code == 0, output
    table = rows(tmp_path / "p.csv")
    assert [row["file"] for row in table] == ["009.png", "gone.png", "001.png", "005.png"]
    assert [bool(row["problem"]) for row in table] == [False, True, False, False]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"line\nbreak.png\x00002.png\x00")))
    code, output = visionadapt("predict", run, "@-", "--out", tmp_path / "q.csv")
    assert code == 0, output
    assert [row["file"] for row in rows(tmp_path / "q.csv")] == ["line\nbreak.png", "002.png"]


def test_lists_as_windows_writes_them(
    visionadapt: Run, run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The NUL bytes of UTF-16 are none between names: `.` and `/` would be folders to walk."""
    monkeypatch.chdir(images)
    for number, encoding in enumerate(("utf-16", "utf-16-le", "utf-16-be")):
        (tmp_path / "list.txt").write_bytes("./009.png\r\n001.png\r\n".encode(encoding))
        code, output = visionadapt("predict", run, f"@{tmp_path}/list.txt", "--out", tmp_path / f"{number}.csv")
        if encoding == "utf-16":
            assert code == 0, output
            assert [Path(row["file"]).name for row in rows(tmp_path / "0.csv")] == ["009.png", "001.png"]
        else:
            assert code == 2 and "UTF-8" in output and not (tmp_path / f"{number}.csv").exists()


def test_sources(visionadapt: Run, run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,note\npictures/002.png,a\npictures/gone.png,b\npictures/001.png,c\n")
    data, out = f"csv({tmp_path}/list.csv, image=file)", tmp_path / "p.csv"
    code, output = visionadapt("predict", run, "--data", data, "--out", out)
    assert code == 0, output
    table = rows(out)
    assert [Path(row["file"]).name for row in table] == ["002.png", "gone.png", "001.png"]
    assert table[1]["problem"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--data"),
        (("{images}", "--data", "{images}"), "--data"),
        (("{images}/gone.png",), "no such file"),
        (("@gone.txt",), "gone.txt cannot be read"),
        (("{images}", "--out", "{tmp}/p.xlsx"), "must end with .csv, .jsonl or .parquet"),
        (("{images}", "--out", "{tmp}/nowhere/p.csv"), "no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    visionadapt: Run, run: Path, images: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    tokens = [word.format(images=images, tmp=tmp_path) for word in arguments]
    before = sorted(tmp_path.rglob("*"))
    code, output = visionadapt("predict", run, *tokens, *(() if "--out" in tokens else ("--out", tmp_path / "p.csv")))
    assert code == 2
    assert words in output
    assert output.count("error:") == 1
    assert sorted(tmp_path.rglob("*")) == before


class StoppedError(Exception):
    pass


def stop_after(count: int) -> Callable[[int, int], None]:
    def told(done: int, rows: int) -> None:
        if done >= count:
            raise StoppedError

    return told


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_attempt_cut_at_any_byte_ends_with_the_same_table(
    run: Path, images: Path, tmp_path: Path, suffix: str
) -> None:
    predictor, manifest = va.load(run), manifest_of(images)
    identity = bulk.identity(run, predictor, manifest)
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    bulk.predict_into(whole, predictor, manifest, identity)
    with pytest.raises(StoppedError):
        bulk.predict_into(out, predictor, manifest, identity, progress=stop_after(120))
    assert not out.exists()
    kept = bulk.partial_of(out).read_bytes()
    resumed = set()
    for length in (0, 1, 20, *random.Random(0).sample(range(20, len(kept)), 6), len(kept)):
        bulk.partial_of(out).write_bytes(kept[:length])
        outcome = bulk.predict_into(out, predictor, manifest, identity)
        assert out.read_bytes() == whole.read_bytes()
        assert not bulk.partial_of(out).exists()
        assert (outcome.classified, outcome.rejected) == (148, 5)
        resumed.add(outcome.resumed)
    assert {0, max(resumed)} < resumed, "some of the rows were kept"
    assert max(resumed) >= 120


@pytest.mark.slow
def test_only_the_same_attempt_is_resumed(run: Path, images: Path, tmp_path: Path) -> None:
    predictor, out = va.load(run), tmp_path / "p.csv"
    identity = bulk.identity(run, predictor, manifest_of(images))
    with pytest.raises(StoppedError):
        bulk.predict_into(out, predictor, manifest_of(images), identity, progress=stop_after(32))
    bulk.check_free(out, identity, overwrite=False)
    (images / "100.png").write_bytes((images / "101.png").read_bytes())
    changed = bulk.identity(run, predictor, manifest_of(images))
    assert changed != identity
    with pytest.raises(RunError, match=r"an unfinished attempt at .* had another run"):
        bulk.check_free(out, changed, overwrite=False)
    bulk.check_free(out, changed, overwrite=True)
    assert bulk.predict_into(out, predictor, manifest_of(images), changed).resumed == 0
    with pytest.raises(RunError, match=r"p\.csv already exists"):
        bulk.check_free(out, changed, overwrite=False)
    (run / "calibration.json").write_text(json.dumps({**predictor.calibration.to_json(), "temperature": 2.0}))
    assert bulk.identity(run, va.load(run), manifest_of(images)) != changed


@pytest.mark.slow
def test_two_processes_do_not_write_one_table(run: Path, images: Path, tmp_path: Path) -> None:
    predictor, manifest, out = va.load(run), manifest_of(images), tmp_path / "p.csv"

    def another(done: int, rows: int) -> None:
        with pytest.raises(RunError, match="another process is writing"):
            bulk.predict_into(out, predictor, manifest, "x")
        raise StoppedError

    with pytest.raises(StoppedError):
        bulk.predict_into(out, predictor, manifest, "x", progress=another)


@pytest.mark.slow
def test_killed_at_a_random_moment_and_run_again(run: Path, images: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "p.csv", tmp_path / ".p.csv.partial"
    words = (str(run), str(images), "--out", str(out))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = Command("visionadapt.predict", words, environment)
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 2):
        time.sleep(0.0005)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    result = forked.run("visionadapt.predict", *words, environment=environment)
    assert result.returncode == 0, result.stderr
    assert "of them before" in result.stderr
    assert not partial.exists()
    predictor, manifest = va.load(run), manifest_of(images)
    whole = tmp_path / "whole.csv"
    bulk.predict_into(whole, predictor, manifest, "x")
    assert out.read_bytes() == whole.read_bytes()
    assert len({row["file"] for row in rows(out)}) == len(rows(out)) == 153


@pytest.mark.slow
def test_memory_stays_flat(run: Path, tmp_path: Path) -> None:
    """Count the allocations of Python, which are deterministic; predictions held in memory would add to them."""
    import tracemalloc

    folder = tmp_path / "many"
    folder.mkdir()
    content = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(content, "PNG")
    for number in range(480):
        (folder / f"{number}.png").write_bytes(content.getvalue())
    predictor, manifest = va.load(run), manifest_of(folder)
    held = []

    def told(done: int, rows: int) -> None:
        if done % 160 == 0:
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        bulk.predict_into(tmp_path / "p.csv", predictor, manifest, "x", progress=told)
        held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(held) == 4
    assert max(held) - held[0] < 300_000


def test_a_run_without_calibration_is_taken_as_it_is(visionadapt: Run, run: Path, images: Path, tmp_path: Path) -> None:
    prediction = va.load(run).predict(images / "000.png")
    assert prediction.abstain is False
    assert prediction.distance != prediction.distance
    code, output = visionadapt("predict", run, images, "--out", tmp_path / "p.csv")
    assert code == 0
    assert "not calibrated" in output
    with pytest.raises(UsageError, match="must end with"):
        check_suffix(Path("p.txt"))


@pytest.mark.parametrize(
    "damage",
    [b"\0\0\0\n", b"5\n", b"[[1, 2]]\n", b'{"a": 1}\n', b"[5]\n", b"[" * 3000 + b"\n"],
    ids=lambda line: line[:9],
)
def test_a_damaged_line_of_an_unfinished_attempt_is_done_again(
    run: Path, images: Path, tmp_path: Path, damage: bytes
) -> None:
    predictor, manifest, out = va.load(run), manifest_of(images).select(range(5)), tmp_path / "p.csv"
    identity = bulk.identity(run, predictor, manifest)
    assert bulk.predict_into(out, predictor, manifest, identity).resumed == 0
    whole = out.read_bytes()
    bulk.partial_of(out).write_bytes(json.dumps({"identity": identity}).encode() + b"\n" + damage)
    assert bulk.predict_into(out, predictor, manifest, identity).resumed == 0
    assert out.read_bytes() == whole


def test_a_list_from_windows_and_one_with_a_name_that_cannot_be(
    visionadapt: Run, run: Path, images: Path, tmp_path: Path
) -> None:
    long = "x" * 300
    (tmp_path / "list.txt").write_bytes(f"\ufeff{images}/009.png\r\n{long}\r\n{images}/001.png\r\n".encode())
    code, output = visionadapt("predict", run, f"@{tmp_path}/list.txt", "--out", tmp_path / "p.csv")
    assert code == 0, output
    found = [(Path(row["file"]).name, row["problem"]) for row in rows(tmp_path / "p.csv")]
    assert found == [("009.png", ""), (long, "cannot be read: File name too long"), ("001.png", "")]


def test_a_table_in_a_missing_folder_is_one_line(visionadapt: Run, run: Path, images: Path, tmp_path: Path) -> None:
    code, output = visionadapt("predict", run, images, "--out", tmp_path / "none" / "p.csv")
    assert (code, output.count("\n")) == (2, 1)
    assert "no such folder" in output and "make it, or give another --out" in output
