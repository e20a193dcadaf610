"""The audit command: exit codes, the files it writes, and one-line error messages."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow.parquet import read_table

from .scenes import OPTIONS, clean_folder

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return clean_folder(tmp_path / "data", count=10)


def leaking(folder: Path) -> Path:
    shutil.copy(folder / "train/red/3.png", folder / "val/red/=copy.png")
    return folder


def test_clean_data_passes_and_is_not_touched(visionadapt: Run, folder: Path, tmp_path: Path) -> None:
    before = sorted(folder.rglob("*"))
    code, output = visionadapt("audit", folder, "--strict", *OPTIONS)
    assert code == 0, output
    assert sorted(folder.rglob("*")) == before
    assert output.splitlines()[-1].endswith("audits/data-1/audit.html")
    assert "images: 40 of 40 rows, 2 classes" in output
    assert "recommended --resize: crop" in output
    assert not [line for line in output.splitlines() if line.startswith(("error:", "warning:", "note:"))]


def test_every_audit_has_its_own_folder(visionadapt: Run, folder: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        code, output = visionadapt("audit", folder, "--quiet", *OPTIONS)
        page = Path(output.splitlines()[-1])
        assert (code, page) == (0, Path("audits") / f"data-{number}" / "audit.html")
        assert page.exists()


def test_no_audit_is_written_among_the_images(visionadapt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "train")
    code, output = visionadapt("audit", "..", *OPTIONS)
    assert code == 2
    assert "--out" in output.splitlines()[-1]
    assert not (folder / "train/audits").exists()


def test_strict_fails_on_a_leak(visionadapt: Run, folder: Path) -> None:
    assert visionadapt("audit", leaking(folder), *OPTIONS)[0] == 0
    code, output = visionadapt("audit", folder, "--strict", *OPTIONS)
    assert code == 1
    assert "error: the same image in two splits: 1 (such as val/red/=copy.png = train/red/3.png)" in output


def test_strict_fails_on_a_conflict(visionadapt: Run, folder: Path) -> None:
    shutil.copy(folder / "train/red/3.png", folder / "train/blue/copy.png")
    assert visionadapt("audit", folder, "--strict", *OPTIONS)[0] == 1


def test_strict_fails_on_a_contradicting_source(visionadapt: Run, folder: Path) -> None:
    table = folder / "labels.csv"
    rows = [(path.relative_to(folder).as_posix(), path.parent.name) for path in sorted(folder.glob("*/*/*.png"))]
    rows[0] = (rows[0][0], "red")
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    source = f"csv({table}, image=file, label=label)"
    assert visionadapt("audit", source, "--strict", "--val", "0.3", *OPTIONS)[0] == 0
    code, output = visionadapt("audit", source, "--strict", "--against", f"folder({folder})", *OPTIONS)
    assert code == 1
    assert "error: the same image with different labels: 1" in output


def test_written_files(visionadapt: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "train/red/empty.jpg").write_bytes(b"")
    code, output = visionadapt("audit", leaking(folder), "--out", tmp_path / "audit", *OPTIONS)
    assert code == 0, output
    assert {path.name for path in (tmp_path / "audit").iterdir()} == {"audit.html", "findings.csv", "findings.parquet"}
    with (tmp_path / "audit/findings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["kind", "severity", "file", "other_file", "label", "detail", "score"]
    table = read_table(tmp_path / "audit/findings.parquet")
    assert table.column_names == columns
    assert list(rows[0]) == [*columns, "action"]
    assert [row["kind"] for row in rows] == ["leak", "empty", "exact_duplicate"] == table["kind"].to_pylist()
    assert table["file"].to_pylist()[0] == "val/red/=copy.png"
    assert table["score"].to_pylist() == [1.0, None, 1.0]
    assert rows[0]["severity"] == "error"
    assert "val/red/=copy.png" in (tmp_path / "audit/audit.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("nowhere",), "nowhere"),
        (("{data}", "--backbone", "no_such_model"), "no_such_model"),
        (("{data}", "--against", "csv(none.csv, image=file)"), "none.csv"),
        (("{data}", "--out", "{data}/train/red/3.png/below"), "train/red/3.png/below"),
        (("{data}", "--out", "{data}/train/audit"), "--out"),
        (("{data}", "--out", "{data}/../data/train/red/3.png"), "--out"),
    ],
)
def test_errors_are_one_line(visionadapt: Run, folder: Path, tokens: tuple[str, ...], message: str) -> None:
    given = [token.format(data=folder) for token in tokens]
    options = OPTIONS[2:] if "--backbone" in given else OPTIONS
    code, output = visionadapt("audit", *given, *options)
    assert code == 2
    assert message in output.splitlines()[-1]
    assert output.splitlines()[-1].startswith("error: ")


def decided(path: Path, kind: str, action: str, **cells: str) -> None:
    """Fill in the action, and perhaps other cells, of the findings of a kind."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "action": action, **cells} if row["kind"] == kind else row for row in rows)


def test_decisions_are_applied_and_kept(visionadapt: Run, folder: Path) -> None:
    leaking(folder)
    assert visionadapt("audit", folder, "--out", "audits/first", *OPTIONS)[0] == 0
    findings = Path("audits/first/findings.csv")
    decided(findings, "leak", "drop")
    before = findings.read_bytes()
    code, output = visionadapt("audit", folder, "--strict", "--exclude", findings, *OPTIONS)
    assert code == 0, output
    assert "1 row dropped" in output
    assert "dropped by findings.csv" in Path("audits/data-1/findings.csv").read_text(encoding="utf-8")
    code, output = visionadapt("audit", folder, "--out", "audits/first", *OPTIONS)
    assert (code, findings.read_bytes()) == (2, before)
    assert "--out" in output.splitlines()[-1]
