"""Pulling a source: what is written, what is fetched again, and what survives a kill."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from visionadapt.core.records import Record
from visionadapt.errors import ImageError, RunError, SourceError, UsageError
from visionadapt.pull.pull import pull
from visionadapt.sources import FileSource, FolderSource, ManifestSource, TableSource

from ..conftest import SMALL_BACKBONE, tinted
from ..forked import Command

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--workers", "0", "--epochs", "1")


@dataclass
class Shop:
    """Rows with their bytes; None for unavailable bytes. It records what is read."""

    rows: Sequence[tuple[Record, bytes | None]]
    classes: tuple[str, ...] = ("ant", "bee")
    read_keys: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Record]:
        return (record for record, _ in self.rows)

    def read(self, record: Record) -> bytes:
        self.read_keys.append(record.key)
        data = next(data for known, data in self.rows if known.key == record.key)
        if data is None:
            raise ImageError(record.key, "the server says 404")
        return data


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def frozen(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return each file's bytes and inode, so that a rewritten file differs."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".pull" not in path.parts]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_ino) for path in paths}


def test_a_folder_is_pulled_with_the_header_of_each_image(tinted_folder: Make, tmp_path: Path) -> None:
    data, out = tinted_folder(count=3), tmp_path / "out"
    tinted((40, 30), 0, 9).convert("L").save(data / "blood" / "grey.jpg")
    (data / "grass" / "page.png").write_bytes(b"<html>")
    source = FolderSource(data)
    pulled = pull(source, out)
    assert (pulled.rows, pulled.fetched, pulled.failed, pulled.changed) == (8, 8, 0, True)
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    for row, record in zip(rows, source, strict=True):
        assert (row["key"], tuple(row["labels"]), row["group"], row["split"]) == (record.key, record.labels, None, None)
        assert (out / row["location"]).read_bytes() == source.read(record)
        assert row["size"] == len(source.read(record)) and row["problem"] is None
        assert abs(row["fetched_at"].timestamp() - time.time()) < 100
    known = {row["key"]: (row["width"], row["height"], row["mode"]) for row in rows}
    assert known["blood/grey.jpg"] == (40, 30, "L")
    assert known["grass/page.png"] == (None, None, None)
    again = ManifestSource(out)
    assert again.classes == source.classes and again.fingerprint == pulled.fingerprint
    assert [again.read(record) for record in again] == [source.read(record) for record in source]


def test_if_nothing_has_changed_nothing_is_read_or_written(tinted_folder: Make, tmp_path: Path) -> None:
    data, out = tinted_folder(count=4), tmp_path / "out"
    first = pull(FolderSource(data), out, val=0.25)
    before = frozen(out)
    second = pull(FolderSource(data), out)
    assert (second.fetched, second.changed, second.fingerprint) == (0, False, first.fingerprint)
    assert pull(FolderSource(data), out, refresh=True).fetched == 8
    os.utime(data / "blood" / "0.png", (1, 1))
    assert pull(FolderSource(data), out).fetched == 1
    assert frozen(out) == before
    for gone in (".pull/journal.sqlite", "manifest.packed"):
        (out / gone).unlink()
        assert not pull(FolderSource(data), out).changed
    assert {name: data for name, (data, _) in frozen(out).items()} == {name: data for name, (data, _) in before.items()}


def test_only_new_and_changed_rows_are_fetched_and_no_split_changes(tinted_folder: Make, tmp_path: Path) -> None:
    data, out = tinted_folder(count=8), tmp_path / "out"
    pull(FolderSource(data), out, val=0.25, test=0.25)
    before = {record.key: record for record in ManifestSource(out)}
    assert Counter(record.split for record in before.values()) == {"train": 8, "val": 4, "test": 4}
    for number in range(8, 20):
        tinted((30, 30), 1, number).save(data / "grass" / f"{number}.png")
    tinted((31, 31), 0, 99).save(data / "blood" / "3.png")
    (data / "blood" / "5.png").unlink()
    pulled = pull(FolderSource(data), out)
    after = {record.key: record for record in ManifestSource(out)}
    assert (pulled.rows, pulled.fetched, pulled.removed, pulled.changed) == (27, 13, 1, True)
    assert before.keys() - after.keys() == {"blood/5.png"}
    assert all(after[key].split == record.split for key, record in before.items() if key in after)
    assert [key for key in before.keys() & after.keys() if before[key] != after[key]] == ["blood/3.png"]
    grass = Counter(record.split for record in after.values() if record.label == "grass")
    assert grass == {"train": 10, "val": 5, "test": 5}
    with pytest.raises(UsageError, match=r"^--val 0\.3: .* val 0\.25; "):
        pull(FolderSource(data), out, val=0.3)


def test_rows_that_failed_are_tried_again(tmp_path: Path) -> None:
    rows = [
        (Record("a", ("ant",), location="https://host/a"), b"1"),
        (Record("b", ("bee",), location="https://host/b"), None),
        (Record("c", problem="has too few cells"), None),
    ]
    shop, out = Shop(rows), tmp_path / "out"
    pulled = pull(shop, out)
    assert pulled.reasons == (("b", "the server says 404"), ("c", "has too few cells"))
    assert [(r.key, r.problem) for r in ManifestSource(out)] == [("a", None), *pulled.reasons]
    shop.read_keys.clear()
    assert not pull(shop, out).changed and shop.read_keys == ["b"]
    shop.rows = [rows[0], (rows[1][0], b"2"), rows[2]]
    assert pull(shop, out).failed == 1
    assert [r.problem for r in ManifestSource(out)] == [None, None, "has too few cells"]
    shop.read_keys.clear()
    shop.rows = [(Record("a", ("bee",), location="https://host/a?v=2"), b"3"), *shop.rows[1:]]
    assert pull(shop, out).changed and shop.read_keys == ["a"]


def test_bytes_without_a_url_or_a_version_are_always_read(tmp_path: Path) -> None:
    shop = Shop([(Record("a"), b"old")])
    pull(shop, tmp_path / "out")
    shop.rows = [(Record("a"), b"new")]
    assert pull(shop, tmp_path / "out").changed
    (record,) = ManifestSource(tmp_path / "out")
    assert ManifestSource(tmp_path / "out").read(record) == b"new"


KEYS = (
    "../../up",
    "/etc/passwd",
    "nul\0",
    "\udcff.jpg",
    "a\nb",
    ".",
    "..",
    "",
    "x" * 5000,
    "files/00",
    "C:\\a",
    "=1+1",
)


def test_a_key_is_never_a_file_s_name(tmp_path: Path) -> None:
    rows = [Record(key, (key or "none",), group=key, columns={key: key}) for key in KEYS]
    shop = Shop([(record, record.key.encode("utf-8", "surrogatepass")) for record in rows])
    shop.classes = tuple(key or "none" for key in KEYS)
    out = tmp_path / "deep" / "out"
    pull(shop, out)
    clean = [key.replace("\udcff", "\\udcff") for key in KEYS]
    frozen_rows = list(ManifestSource(out))
    assert [record.key for record in frozen_rows] == [record.group for record in frozen_rows] == clean
    assert [record.columns[key] for record, key in zip(frozen_rows, clean, strict=True)] == clean
    assert [ManifestSource(out).read(record) for record in frozen_rows] == [data for _, data in shop.rows]
    names = {path.name for path in (out / "files").rglob("*") if path.is_file()}
    assert all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in names)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.name not in names) == [
        *("journal.sqlite", "lock", "manifest.packed", "manifest.parquet")
    ]


def test_two_rows_with_one_key_are_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="two rows with the key 'a'"):
        pull(Shop([(Record("a"), b"1"), (Record("a"), b"2")]), tmp_path / "out")


def test_credentials_are_in_no_file(tmp_path: Path) -> None:
    url = "https://user:canary@host/a.jpg?token=canary"
    record = Record("a", location=url, problem=None, columns={"page": "http://canary:canary@host/"})
    failing = Record("b", location=url, problem="https://user:canary@host/b.jpg is gone")
    pull(Shop([(record, b"1"), (failing, None)]), tmp_path / "out")
    assert len(files_of(tmp_path)) == 5
    assert not [name for name, data in files_of(tmp_path).items() if b"canary" in data]
    assert next(iter(ManifestSource(tmp_path / "out"))).columns["page"] == "http://***@host/"


@pytest.mark.slow
def test_a_bounded_number_of_images_is_in_memory(tmp_path: Path) -> None:
    size, lock, alive = 1 << 20, threading.Lock(), Counter[str]()

    class Large(bytes):
        def __del__(self) -> None:
            with lock:
                alive["now"] -= 1

    class Many(Shop):
        def read(self, record: Record) -> bytes:
            with lock:
                alive["now"] += 1
                alive["most"] = max(alive["most"], alive["now"])
            return Large(random.Random(record.key).randbytes(size))

    pull(Many([(Record(str(number)), b"") for number in range(60)]), tmp_path / "out", workers=3)
    assert 3 <= alive["most"] <= 8
    assert len(list((tmp_path / "out" / "files").rglob("*/*"))) == 60


def test_other_folders_are_left_alone(tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    for out, message in (("mine", "other things"), ("mine/file", "no folder"), ("data/out", "--out .* is in ")):
        with pytest.raises(UsageError, match=message):
            pull(FolderSource(data), tmp_path / out)
    assert files_of(tmp_path / "mine") == {"file": b"mine"}
    pull(FolderSource(data), tmp_path / "out")
    with pytest.raises(UsageError, match=r"--out .* is in "):
        pull(ManifestSource(tmp_path / "out"), tmp_path / "out")
    assert pull(ManifestSource(tmp_path / "out"), tmp_path / "copy").rows == 4


def test_only_one_pull_uses_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Nested(Shop):
        def read(self, record: Record) -> bytes:
            with pytest.raises(RunError, match=f"another pull is using {re.escape(str(out))}"):
                pull(Shop([]), out)
            return b"1"

    assert pull(Nested([(Record("a"), b"")]), out).failed == 0


def test_a_damaged_journal_is_replaced(tinted_folder: Make, tmp_path: Path) -> None:
    data, out = tinted_folder(count=2), tmp_path / "out"
    pull(FolderSource(data), out)
    (out / ".pull" / "journal.sqlite").write_bytes(b"no database" * 1000)
    assert (pull(FolderSource(data), out).changed, pull(FolderSource(data), out).fetched) == (False, 0)


SLOW = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from visionadapt.pull.pull import pull
from visionadapt.core.records import Record

@dataclass(frozen=True)
class Slow:
    log: str
    classes = ("ant", "bee")

    def __iter__(self):
        return (Record(f"k{n}", (self.classes[n % 2],), location=f"http://host/{n}") for n in range(150))

    def read(self, record):
        time.sleep(0.004)
        with Path(self.log).open("a") as file:
            file.write(record.key + "\\n")
        return record.key.encode() * 1000

if __name__ == "__main__":
    pull(Slow(sys.argv[1]), sys.argv[2], val=0.2, workers=2)
"""


@pytest.mark.slow
def test_a_pull_that_is_killed_repeatedly_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    script = tmp_path / "slow_shop.py"
    script.write_text(SLOW)
    for reads in (40, 149):
        process = Command(str(script), [str(log), str(out)])
        while process.poll() is None and (not log.exists() or log.read_text().count("\n") < reads):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    monkeypatch.syspath_prepend(tmp_path)
    slow = importlib.import_module("slow_shop").Slow
    pull(slow(str(tmp_path / "whole.log")), tmp_path / "whole", val=0.2)
    pull(slow(str(log)), out, val=0.2)
    assert list(ManifestSource(out)) == list(ManifestSource(tmp_path / "whole"))
    fetched = Counter(log.read_text().split())
    assert len(fetched) == 150 and fetched.total() < 2 * 150
    assert not list((out / ".pull").glob("bytes-*"))


@pytest.mark.slow
def test_training_on_a_manifest_gives_the_folder_s_weights_and_records_its_fingerprint(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tinted_folder(count=5)
    monkeypatch.chdir(tmp_path)
    code, output = visionadapt("pull", data, "--out", "frozen")
    assert code == 0 and "rows: 10 (0 with a problem)" in output, output
    for name, source in (("folder", data), ("frozen-run", "manifest(frozen)")):
        code, output = visionadapt("train", "--data", source, "--out", name, *SMALL)
        assert code == 0, output
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("folder", "frozen-run")]
    assert weights[0] == weights[1]
    fingerprint = ManifestSource("frozen").fingerprint
    for name in ("config.json", "summary.json"):
        assert json.loads((tmp_path / "frozen-run" / name).read_text())["manifest"] == fingerprint
    rows = pq.read_table(tmp_path / "frozen-run" / "ledger.parquet").to_pylist()
    assert all(row["width"] and row["mode"] == "RGB" for row in rows)

    (tmp_path / "frozen-run" / "summary.json").unlink()
    (data / "blood" / "4.png").rename(data / "grass" / "4b.png")
    assert visionadapt("pull", data, "--out", "frozen")[0] == 0
    code, output = visionadapt("train", "--resume", "frozen-run")
    assert code == 2 and "holds other rows than frozen-run began with" in output


def test_a_mistake_is_reported_in_one_line(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=2)
    for tokens, words in (
        ((data, "--out", data / "x"), f"--out {data / 'x'} is in {data}"),
        ((data, "--out", tmp_path / "x", "--val", "2"), "must be shares"),
        ((data, "--out", tmp_path / "x", "--workers", "0"), "at least one is needed"),
        ((tmp_path / "none", "--out", tmp_path / "x"), "no such folder"),
        ((f"manifest({data})", "--out", tmp_path / "x"), "holds no manifest.parquet"),
    ):
        code, output = visionadapt("pull", *tokens)
        assert (code, output.count("\n")) == (2, 1) and words in output, output


def test_tables_keep_groups_splits_and_labels(tinted_folder: Make, tmp_path: Path) -> None:
    data = tinted_folder(count=3)
    table = data / "labels.csv"
    lines = [
        f"{r.key},{r.label}|x,g{n % 2},{'test' if n == 0 else ''}" for n, r in enumerate(FolderSource(data)) if r.label
    ]
    table.write_text("file,label,who,set\n" + "\n".join(lines))
    source = TableSource(table, "file", "label", group="who", split="set", separator="|")
    pull(source, tmp_path / "out", val=0.5)
    rows = list(ManifestSource(tmp_path / "out"))
    assert [(r.key, r.labels, r.group) for r in rows] == [(r.key, r.labels, r.group) for r in source]
    assert rows[0].split == "test"
    sides = {(r.group, r.split) for r in rows[1:]}
    assert len(sides) == 2 and ("g0", "test") in sides


def test_a_journal_that_is_damaged_later_says_what_to_do(tinted_folder: Make, tmp_path: Path) -> None:
    data, out = tinted_folder(count=2), tmp_path / "out"
    pull(FolderSource(data), out)
    journal = out / ".pull" / "journal.sqlite"
    content = journal.read_bytes()
    journal.write_bytes(content[:4096] + b"x" * (len(content) - 4096))
    with pytest.raises(RunError, match=r"journal\.sqlite .* remove it"):
        pull(FolderSource(data), out)
    journal.unlink()
    assert pull(FolderSource(data), out).changed is False


@pytest.mark.parametrize("name", [".pull/lock", ".pull/journal.sqlite", ".pull/bytes-x", "files", "files/ab", ".pull"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_written_through_links_in_the_folder(
    tinted_folder: Make, tmp_path: Path, name: str, kind: str
) -> None:
    data, out, outside = tinted_folder(count=2), tmp_path / "out", tmp_path / "outside"
    pull(FolderSource(data), out)
    outside.mkdir()
    (outside / "file").write_text("mine")
    path = out / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if "." not in Path(name).name else outside / "file")
    with pytest.raises(UsageError, match=r"is a link, .* remove it"):
        pull(FolderSource(data), out, refresh=True)
    assert files_of(outside) == {"file": b"mine"}


def test_a_folder_of_files_is_not_pulled_into_itself(tinted_folder: Make) -> None:
    data = tinted_folder(count=2)
    with pytest.raises(UsageError, match=r"--out .* is in "):
        pull(FileSource([data]), data / "out")
    assert not (data / "out").exists()


def test_rows_that_a_person_has_marked_are_left_out_of_a_pull(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, out, findings = tinted_folder(count=2), tmp_path / "out", tmp_path / "findings.csv"
    first, second, *_ = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    other = next(path.name for path in sorted(data.iterdir()) if path.name not in second)
    findings.write_text(f"file,label,action\n{first},,drop\n{second},{other},relabel\n")
    code, output = visionadapt("pull", data, "--out", out, "--exclude", findings)
    assert code == 0 and "1 row dropped, 1 relabelled" in output, output
    rows = {record.key: record for record in ManifestSource(out)}
    assert rows[first].problem == "dropped by findings.csv" and rows[second].labels == (other,)
    assert ManifestSource(out).read(rows[second]) == (data / second).read_bytes()
    code, output = visionadapt("pull", data, "--out", out)
    rows = {record.key: record for record in ManifestSource(out)}
    assert code == 0 and rows[first].problem is None and rows[second].labels != (other,)
