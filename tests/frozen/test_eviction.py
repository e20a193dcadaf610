"""The cache's folder as a whole: what goes first, what stays, and the command that shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from visionadapt import cache
from visionadapt.commands import shell
from visionadapt.errors import UsageError
from visionadapt.frozen.cache.eviction import Space, make_room, read_size, remove, spaces
from visionadapt.frozen.cache.store import FeatureCache
from visionadapt.system.text import written_size

BLOCK = 64_000


def space(folder: Path, number: int, used: float) -> Path:
    """Make a space of 64,000 bytes of features that was last used at a time."""
    cache = FeatureCache(folder, {"backbone": f"net{number}", "cut": number, "precision": "uint8"})
    cache.append([bytes([number]) * 32], {"x": torch.zeros(1, BLOCK, dtype=torch.uint8)})
    os.utime(cache.folder / "space.json", (used, used))
    return cache.folder


def test_what_was_unused_for_longest_goes_first(tmp_path: Path) -> None:
    middle, old, new = (space(tmp_path, number, used) for number, used in ((1, 200.0), (2, 100.0), (3, 300.0)))
    assert [known.folder for known in spaces(tmp_path)] == [new, middle, old]
    total = sum(known.bytes for known in spaces(tmp_path))
    assert make_room(tmp_path, total) == []
    assert [gone.folder for gone in make_room(tmp_path, total - 1)] == [old]
    assert [gone.folder for gone in make_room(tmp_path, total, needed=2 * BLOCK)] == [middle]
    assert [known.folder for known in spaces(tmp_path)] == [new]
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name]


def test_the_space_that_grows_stays_and_what_it_holds_is_not_counted_twice(tmp_path: Path) -> None:
    own, other = space(tmp_path, 1, 100.0), space(tmp_path, 2, 200.0)
    total = sum(known.bytes for known in spaces(tmp_path))
    assert make_room(tmp_path, total, needed=BLOCK, spare=own) == []
    assert [gone.folder for gone in make_room(tmp_path, BLOCK, needed=BLOCK, spare=own)] == [other]
    assert own.exists()


def test_a_space_in_use_stays(tmp_path: Path) -> None:
    folder = space(tmp_path, 1, 100.0)
    reader = FeatureCache(tmp_path, {"backbone": "net1", "cut": 1, "precision": "uint8"})
    assert reader.folder == folder
    assert make_room(tmp_path, 0) == []
    assert torch.equal(reader.read([0])["x"], torch.zeros(1, BLOCK, dtype=torch.uint8))
    del reader
    assert [gone.folder for gone in make_room(tmp_path, 0)] == [folder]


def test_whatever_else_lies_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"photo")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "space.json").write_text("{")
    space(tmp_path, 1, 100.0)
    make_room(tmp_path, 0)
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"photo"
    assert (tmp_path / "broken").exists()


def test_a_space_that_cannot_be_removed_stays_and_the_next_one_goes(tmp_path: Path) -> None:
    old, new = space(tmp_path, 1, 100.0), space(tmp_path, 2, 200.0)
    (old / "in_use").unlink()
    (old / "in_use").mkdir()
    assert [gone.folder for gone in make_room(tmp_path, 0)] == [new]
    assert (old / "x.bin").exists()


def test_removing_what_is_gone_already_is_no_error(tmp_path: Path) -> None:
    known = Space(tmp_path / "gone", {}, 0, 0, 0.0)
    assert not remove(known)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("12", 12), ("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("2T", 2 * 10**12), ("3KiB", 3000)],
)
def test_sizes(text: str, count: int) -> None:
    assert read_size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 2", "1e9", "five"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="is no size; give one such as"):
        read_size(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (44_000, "44.0 KB"), (340e6, "340 MB"), (2.5e12, "2.5 TB")]
)
def test_written_sizes(count: float, text: str) -> None:
    assert written_size(count) == text


def test_the_command_tells_what_is_kept_and_clears_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> tuple[int, str]:
        code = shell.run(cache.app, ["--cache", str(tmp_path), *words])
        return code, capsys.readouterr().err

    assert told() == (0, f"{tmp_path} is empty\n")
    name = space(tmp_path, 1, 100.0).name
    code, text = told()
    assert code == 0
    assert f"{tmp_path} holds " in text
    assert f"{name}: net1, cut 1, uint8, eager: 1 row," in text
    assert told("--limit", "a lot")[0] == 2
    assert "removed 1 entry" in told("--clear")[1]
    assert told() == (0, f"{tmp_path} is empty\n")


def test_an_entry_names_its_images_and_goes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (space(tmp_path, number, 100.0 * number) for number in (1, 2))
    reader = FeatureCache(tmp_path, {"backbone": "net1", "cut": 1, "precision": "uint8"})
    for name in ("folder(photos)", "sql(postgresql://me:word@host/birds)", "folder(photos)"):
        reader.note_data(name)
    del reader
    (known,) = (each for each in spaces(tmp_path) if each.folder == first)
    assert known.data == ("folder(photos)", "sql(postgresql://…@host/birds)")
    assert shell.run(cache.app, ["--cache", str(tmp_path), "--remove", first.name]) == 0
    assert [each.folder for each in spaces(tmp_path)] == [second]
    assert shell.run(cache.app, ["--cache", str(tmp_path)]) == 0
    assert "1 row," in capsys.readouterr().err
    for name in (first.name, ""):
        assert shell.run(cache.app, ["--cache", str(tmp_path), "--remove", name]) == 2
    assert second.exists()
