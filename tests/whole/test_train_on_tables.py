"""Training takes tables as it takes folders: the same weights, from any working folder, and every row told."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.errors import SourceError, SplitError
from visionadapt.evaluation.evaluate import labelled_rows
from visionadapt.sources import FolderSource, TableSource

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0", "--epochs", "2")


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `visionadapt train …`; give the exit code and all that was written to the terminal."""

    def run(*tokens: str | Path) -> tuple[int, str]:
        code = shell.run(app, ["train", *(str(token) for token in tokens)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def table_of(folder: Path, path: Path, *more: tuple[str, str, str]) -> Path:
    """The rows of a folder as a CSV file with labels in capitals and four groups a class."""
    lines = [(r.key, str(r.label).upper(), f"{r.label}{n % 4}") for n, r in enumerate(FolderSource(folder))]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label", "who"), *lines, *more])
    return path


def test_the_same_rows_give_the_same_weights(
    train: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tinted_folder()
    table_of(data, tmp_path / "labels.csv")
    monkeypatch.chdir(tmp_path)
    settings = "csv(labels.csv, image=file, label=label, labels={BLOOD: blood, GRASS: grass}, root=data)"
    for source, out in ((str(data), "folder"), (settings, "table")):
        code, output = train("--data", source, "--out", tmp_path / out, *SMALL)
        assert code == 0, output
        assert "16 images to train on, 4 (20.0 %) to validate with" in output
    weights = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("folder", "table")]
    assert weights[0] == weights[1]

    stored = json.loads((tmp_path / "table" / "config.json").read_text())["options"]["data"]
    assert stored.startswith(f"csv({tmp_path}/labels.csv, image=file, label=label, ")
    assert stored.endswith(f"root={data})")
    (tmp_path / "table" / "summary.json").unlink()
    (tmp_path / "table" / "model.safetensors").unlink()
    monkeypatch.chdir("/")
    code, output = train("--resume", tmp_path / "table", "--workers", "0")
    assert code == 0, output
    assert (tmp_path / "table" / "model.safetensors").read_bytes() == weights[0]


def test_every_row_is_told_and_no_group_divided(
    train: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tinted_folder()
    more = [("none.png", "BLOOD", "x"), ("./grass/0.png", "UNSURE", "x"), ("/etc/passwd", "GRASS", "x")]
    table_of(data, data / "labels.csv", *more)
    monkeypatch.chdir(tmp_path)
    code, output = train("--data", f"csv({data}/labels.csv, image=file, label=label, group=who, drop=UNSURE)", *SMALL)
    assert code == 0, output
    assert "no group of 9 on both sides" in output
    run = tmp_path / "runs" / "labels-1"
    with (run / "rejected.csv").open(encoding="utf-8", newline="") as file:
        assert {row["file"]: row["reason"] for row in csv.DictReader(file)} == {
            "none.png": "no such file (line 22)",
            "grass/0.png#2": "dropped: its label is 'UNSURE' (line 23)",
            "etc/passwd": "leads out of the folder (line 24)",
        }
    assert json.loads((run / "summary.json").read_text())["images"] == {"used": 20, "repaired": 0, "rejected": 3}
    with (data / "labels.csv").open(encoding="utf-8", newline="") as file:
        group_of = {row["file"]: row["who"] for row in csv.DictReader(file)}
    lines = pq.read_table(run / "ledger.parquet").to_pylist()
    used = [line for line in lines if line["status"] == "used"]
    train_groups, val_groups = ({group_of[row["file"]] for row in used if row["part"] == p} for p in ("train", "val"))
    assert len(train_groups | val_groups) == 8 and val_groups and not train_groups & val_groups


def test_images_that_the_given_folder_lacks_are_told_with_the_option_that_finds_them(
    train: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data = tinted_folder()
    rows = [path.relative_to(data) for path in sorted(data.glob("*/*.png"))]
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{path},{path.parent}\n" for path in rows))
    for number, path in enumerate(rows):
        there = data / f"part_{number % 2}" / path
        there.parent.mkdir(parents=True, exist_ok=True)
        (data / path).rename(there)
    table = f"csv({tmp_path}/labels.csv, image=file, label=label, root="
    code, output = train("--data", f"{table}{data}/part_0)", "--out", tmp_path / "half", *SMALL)
    both = f"[{data}/part_0, {data}/part_1]"
    assert code == 0 and f"root={both}" in output, output
    code, output = train("--data", f"{table}{both})", "--out", tmp_path / "run", *SMALL)
    assert code == 0, output
    assert json.loads((tmp_path / "run/summary.json").read_text())["images"]["used"] == len(rows)
    code, output = train("--resume", tmp_path / "run", "--epochs", "3", "--workers", "0")
    assert code == 0, output


def test_several_labels_a_picture_are_refused_where_one_is_asked_for(
    train: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data = tinted_folder()
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nblood/0.png,a|b\nblood/1.png,a\ngrass/0.png,b\n")
    source = f'csv({table}, image=file, label=label, root={data}, separator="|")'
    code, output = train("--data", source, "--task", "single", "--out", "x", *SMALL)
    assert code == 2
    assert output.count("\n") == 1 and "blood/0.png has 2 labels (a, b), and an image can have one here" in output


def test_a_part_of_a_table_is_evaluated(tinted_folder: Make, tmp_path: Path) -> None:
    data, table = tinted_folder(), tmp_path / "labels.csv"
    table.write_text("file,label,set\nblood/0.png,blood,test\nblood/1.png,grass|blood,train\nnone.png,mud,Test\n")
    source = TableSource(table, "file", "label", split="set", separator="|", root=data)
    rows, part = labelled_rows(source, None, ("blood", "grass"))
    assert part == "test" and rows.classes == ("blood", "grass", "mud")
    assert [(row.key, row.label, row.problem) for row in rows] == [
        ("blood/0.png", "blood", None),
        ("none.png", "mud", "no such file (line 4)"),
    ]
    with pytest.raises(SplitError, match=r"blood/1\.png has 2 labels \(grass, blood\)"):
        labelled_rows(source, "train", ("blood", "grass"))
    with pytest.raises(SourceError, match=r"blood.*cat"):
        labelled_rows(source, None, ("cat", "dog"))


def test_a_table_alone_is_answered_with_its_columns(train: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_text("file\tkind\n")
    code, output = train("--data", tmp_path / "labels.tsv", "--out", tmp_path / "run", *SMALL)
    assert code == 2
    assert (
        f'is a table: give --data "tsv({tmp_path}/labels.tsv, image=file, label=kind)" (columns: file, kind)' in output
    )
