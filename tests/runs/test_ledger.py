"""The ledger: a Parquet file that any reader opens, and a limit on what may be rejected."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import Finding
from visionadapt.errors import RunError, UsageError
from visionadapt.runs.ledger import most_rejected, read_ledger, trained_files, write_ledger
from visionadapt.sources import FolderSource

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--workers", "0", "--epochs", "1")


@dataclass(frozen=True)
class Rows:
    rows: tuple[Record, ...] = ()
    classes: tuple[str, ...] = ("ant", "bee")

    def __iter__(self) -> Iterator[Record]:
        return iter(self.rows)

    def read(self, record: Record) -> bytes:
        return b""


ODD = ("plain.png", "\udcff.png", "a\nb\r.png", "nul\0.png", "=1+1.png", "a\u2028b.png")


def odd_parts() -> dict[str, tuple[Manifest, list[Finding]]]:
    columns = {"width": "640", "height": "a few", "mode": "CMYK"}
    rows = [Record(key, ("ant", "bee"), group=f"g{key}", columns=columns) for key in ODD]
    findings = [
        Finding(0, "00", ()),
        Finding(1, "01", ("turned", "first of 2"), decoder="pillow-heif 1.0"),
        *(Finding(row, "", (), f"{key} is bad") for row, key in enumerate(ODD[2:], 2)),
    ]
    val = Manifest(Rows(), [Record("v.png", ("bee",))])
    return {"train": (Manifest(Rows(), rows), findings), "val": (val, [Finding(0, "02", ("grey",))])}


def test_any_reader_opens_it_and_no_name_breaks_it(tmp_path: Path) -> None:
    write_ledger(tmp_path, odd_parts())
    rows = pq.read_table(tmp_path / "ledger.parquet").to_pylist()
    cleaned = [key.replace("\udcff", "\\udcff") for key in ODD]
    assert [row["file"] for row in rows] == [*cleaned, "v.png"]
    assert [row["status"] for row in rows] == ["used", "repaired", *("rejected",) * 4, "repaired"]
    assert rows[1] == {
        "file": "\\udcff.png",
        "part": "train",
        "labels": ["ant", "bee"],
        "group": "g\\udcff.png",
        "status": "repaired",
        "repairs": ["turned", "first of 2"],
        "reason": None,
        "sha256": "01",
        "decoder": "pillow-heif 1.0",
        "version": None,
        "width": 640,
        "height": None,
        "mode": "CMYK",
    }
    assert (rows[6]["width"], rows[6]["mode"], rows[6]["labels"]) == (None, None, ["bee"])
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        named = [row["file"].removeprefix("'") for row in csv.DictReader(file)]
    assert named == cleaned[2:]
    assert trained_files(tmp_path) == {"00", "01"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.parquet", "rejected.csv"]


def test_what_was_settled_is_read_again_for_the_same_rows_alone(tmp_path: Path) -> None:
    parts = odd_parts()
    assert read_ledger(tmp_path, "train", parts["train"][0]) is None
    write_ledger(tmp_path, parts)
    for name, (manifest, findings) in parts.items():
        assert read_ledger(tmp_path, name, manifest) == findings
    train = parts["train"][0]
    for other in (train.select(range(5)), train.select([*range(6), 0]), train.select([1, 0, 2, 3, 4, 5])):
        with pytest.raises(RunError, match=r"the images are not those that .* began with"):
            read_ledger(tmp_path, "train", other)
    whole = (tmp_path / "ledger.parquet").read_bytes()
    for damaged in (whole[:-3], b"", whole[:40] + b"\xff" * 40 + whole[80:]):
        (tmp_path / "ledger.parquet").write_bytes(damaged)
        with pytest.raises(RunError, match=r"ledger\.parquet cannot be read"):
            read_ledger(tmp_path, "train", train)


@dataclass(frozen=True)
class Files(FolderSource):
    """Files of which the reads are counted."""

    reads: tuple[list[str], ...] = ()

    def read(self, record: Record) -> bytes:
        self.reads[0].append(record.key)
        return super().read(record)


def test_a_change_of_a_row_is_named(tmp_path: Path) -> None:
    names, run = ("a.png", "b.png", "c.png"), tmp_path / "run"
    run.mkdir()
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    source = Files(str(tmp_path), reads=([],))
    records = [Record(name, ("ant",), location=name) for name in names]
    manifest = Manifest(source, records, ("ant", "bee"))
    findings = [Finding(place, hashlib.sha256(name.encode()).hexdigest()) for place, name in enumerate(names)]
    write_ledger(run, {"train": (manifest, findings)})
    assert read_ledger(run, "train", manifest) == findings
    for rows, told in (
        ([records[0], dataclasses.replace(records[1], labels=("bee",)), records[2]], "b.png was 'ant' and is 'bee'"),
        ([records[0], dataclasses.replace(records[1], labels=()), records[2]], "b.png was 'ant' and is without"),
        ([records[0], records[2], records[1]], "in the place of b.png there is c.png"),
        (records[:2], "c.png is missing"),
        ([*records, Record("d.png", ("bee",))], "d.png is new"),
    ):
        with pytest.raises(RunError, match=f"{re.escape(told)}.*{run} --toml"):
            read_ledger(run, "train", Manifest(source, rows, ("ant", "bee")))
    assert not source.reads[0], "no file is read while its size and times are the same"
    os.utime(tmp_path / "a.png", (1, 1))
    assert read_ledger(run, "train", manifest) == findings
    assert source.reads[0] == ["a.png"]
    (tmp_path / "b.png").write_bytes(b"B.png")
    with pytest.raises(RunError, match=r"b\.png has other contents"):
        read_ledger(run, "train", manifest)
    (tmp_path / "b.png").unlink()
    with pytest.raises(RunError, match=r"b\.png cannot be read: No such file"):
        read_ledger(run, "train", manifest)


@pytest.mark.slow
def test_a_run_is_not_resumed_on_other_labels_contents_or_options(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run, table = tinted_folder(count=6), tmp_path / "run", tmp_path / "labels.csv"
    files = sorted(data.rglob("*.png"))
    lines = [f"{path},{path.parent.name},{'val' if int(path.stem) < 2 else 'train'}" for path in files]
    table.write_text("\n".join(["file,label,part", *lines]))
    source = f"csv({table}, image=file, label=label, split=part)"
    words = ("--data", source, "--out", run, "--adapter", "none", "--head", "trained", *SMALL[:-1], "3")
    words += ("--max-minutes", "0.00001")
    assert visionadapt("train", *words)[0] == 0
    text, config = table.read_text(), (run / "config.json").read_text()

    def refused(*words: object) -> str:
        code, output = visionadapt("train", "--resume", run, *words)
        assert code == 2 and "Traceback" not in output
        return output.splitlines()[-1]

    table.write_text(text.replace(f"{files[-1]},grass", f"{files[-1]},blood"))
    assert files[-1].name in refused() and "'grass' and is 'blood'" in refused()
    table.write_text(text)
    content = files[3].read_bytes()
    files[3].write_bytes(files[4].read_bytes())
    assert f"{files[3].name} has other contents" in refused()
    files[3].write_bytes(content)
    (run / "config.json").write_text(config.replace('"batch_size": 32', '"batch_size": 16'))
    assert "--batch-size was 32, and is 16" in refused()
    (run / "config.json").write_text(config)
    assert "--learning-rate" in refused("--learning-rate", "0.5")
    assert visionadapt("train", "--resume", run)[0] == 0


@pytest.mark.slow
def test_many_rows_are_written_in_bounded_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (10_000, 20_000):
        manifest = Manifest(Rows(), (Record(f"ant/{row:06}.png", ("ant",)) for row in range(count)))
        findings = [Finding(row, f"{row:064}") for row in range(count)]
        tracemalloc.start()
        write_ledger(tmp_path, {"train": (manifest, findings)})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
    assert pq.read_metadata(tmp_path / "ledger.parquet").num_row_groups > 1


@given(st.integers(0, 100), st.integers(0, 10**7))
def test_a_share_is_rounded_down(percent: int, rows: int) -> None:
    assert most_rejected(f"{percent}%", rows) == rows * percent // 100
    assert most_rejected(str(percent), rows) == percent


@pytest.mark.parametrize("limit", ["", "five", "-1", "101%", "5 %%", "nan%", "1e3", "0x3", "٣%"])
def test_what_is_no_limit_is_told(limit: str) -> None:
    with pytest.raises(UsageError, match="is no limit; give a share such as 5%, or a number of rows"):
        most_rejected(limit, 100)


@pytest.mark.slow
def test_a_run_with_too_many_rejected_rows_stops_and_tells_where_they_are(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=18), tmp_path / "run"
    for number in range(4):
        (data / "blood" / f"bad{number}.png").write_bytes(b"")
    arguments = ("--data", data, "--out", run, "--adapter", "none", *SMALL)
    code, output = visionadapt("train", *arguments, "--max-rejected", "5%")
    error = output.splitlines()[-1]
    assert code == 2
    assert (
        "4 of 40 rows are rejected (10.0 %), more than --max-rejected 5% allows: 4 × is empty (0 bytes) (such" in error
    )
    assert error.endswith(f"all of them are in {run}/rejected.csv")
    assert len((run / "rejected.csv").read_text().splitlines()) == 5
    assert pq.read_table(run / "ledger.parquet").num_rows == 40
    assert not (run / "metrics.jsonl").exists()

    assert visionadapt("train", "--resume", run)[0] == 2
    code, output = visionadapt("train", "--resume", run, "--max-rejected", "4")
    assert code == 0, output
    summary = json.loads((run / "summary.json").read_text())
    assert summary["val_rows"] == summary["val_images"] + summary["val_rejected"]
    assert summary["train_images"] + summary["val_images"] == 36
    lost = summary["val_rejected"]
    told = f"on {summary['val_images']} of {summary['val_rows']} rows, {lost} rejected" if lost else "images (epoch"
    assert told in output
    code, output = visionadapt("train", *arguments[:2], "--out", tmp_path / "x", "--max-rejected", "a few")
    assert (code, output.count("\n")) == (2, 1) and not (tmp_path / "x").exists()


@pytest.mark.slow
def test_rows_that_the_user_excludes_are_rejected_and_the_file_is_part_of_the_run(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run, findings = tinted_folder(count=8), tmp_path / "run", tmp_path / "findings.csv"
    first, second = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))[:2]
    other = next(path.name for path in sorted(data.iterdir()) if path.is_dir() and path.name not in second)
    text = f"file,label,action\n{first},,drop\n{second},{other},relabel\ngone.png,,drop\n"
    findings.write_text(text)
    code, output = visionadapt(
        "train", "--data", data, "--out", run, "--adapter", "none", "--exclude", findings, *SMALL
    )
    assert code == 0, output
    assert "1 row dropped, 1 relabelled" in output and "gone.png" in output
    rejected = (run / "rejected.csv").read_text()
    assert first in rejected and "dropped by findings.csv" in rejected and second not in rejected
    code, output = visionadapt("evaluate", run, "--data", data, "--exclude", findings, "--workers", 0)
    assert code == 0 and "1 row dropped, 1 relabelled" in output, output
    assert first in (run / "evaluation" / "rejected.csv").read_text()
    assert f"\n{second},{other}," in (run / "evaluation" / "predictions.csv").read_text()
    (run / "summary.json").unlink()
    findings.write_text(text.replace("drop", "keep"))
    code, output = visionadapt("train", "--resume", run)
    assert (code, str(findings) in output.splitlines()[-1]) == (2, True)
    findings.write_text(text)
    assert visionadapt("train", "--resume", run)[0] == 0
