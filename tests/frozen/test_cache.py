"""The feature cache: what was appended is what is read, whatever else happens on the disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from visionadapt.errors import RunError
from visionadapt.frozen.cache.store import IN_USE, FeatureCache, space_folder
from visionadapt.system.cache_folder import default_folder

from ..forked import Command


def identity(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def row(number: int) -> dict[str, Tensor]:
    """Tensors that can belong to one number alone."""
    generator = torch.Generator().manual_seed(number)
    return {
        "x": torch.randn(3, 2, generator=generator),
        "half": torch.randn(5, generator=generator).bfloat16(),
        "pixels": torch.randint(0, 256, (3, 2, 1), dtype=torch.uint8, generator=generator),
        "number": torch.tensor(number),
    }


def rows_of(numbers: list[int]) -> dict[str, Tensor]:
    return {name: torch.stack([row(number)[name] for number in [*numbers, 0]])[:-1] for name in row(0)}


def append(cache: FeatureCache, numbers: list[int]) -> None:
    cache.append([identity(number) for number in numbers], rows_of(numbers))


def check(cache: FeatureCache, numbers: list[int]) -> None:
    read = cache.read([cache.rows[identity(number)] for number in numbers])
    for name, expected in rows_of(numbers).items():
        assert read[name].dtype == expected.dtype
        assert torch.equal(read[name], expected), name


def test_what_is_appended_is_read_in_any_order(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {"cut": 1})
    append(cache, [0, 1, 2])
    append(cache, [3])
    check(cache, [2, 0, 3, 3, 1])
    assert cache.read([])["x"].shape == (0, 3, 2)


def test_an_empty_space_reads_as_no_rows(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    assert len(cache.rows) == 0
    assert cache.read([]) == {}


def test_a_reopened_cache_goes_on_where_it_was(tmp_path: Path) -> None:
    append(FeatureCache(tmp_path, {"cut": 1}), [0, 1])
    again = FeatureCache(tmp_path, {"cut": 1})
    append(again, [1, 2])
    check(again, [0, 1, 2])
    check(FeatureCache(tmp_path, {"cut": 1}), [2, 1, 0])
    assert len(again.rows) == 3


def test_two_equal_pictures_in_one_batch_share_a_row(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    append(cache, [0, 1, 1, 0])
    append(cache, [2, 2])
    check(cache, [0, 1, 2])
    assert len(cache.rows) == 3
    check(FeatureCache(tmp_path, {}), [0, 1, 2])


def test_identities_that_stand_twice_on_the_disk_shift_no_row(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    append(cache, [0, 1, 2])
    ids = cache.folder / "ids.bin"
    ids.write_bytes(identity(0) + identity(0) + identity(2))
    again = FeatureCache(tmp_path, {})
    append(again, [7])
    check(again, [0, 2, 7])


def test_a_channels_last_tensor_keeps_its_values(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    maps = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    cache.append([identity(0), identity(1)], {"x": maps})
    assert torch.equal(cache.read([1, 0])["x"], maps[[1, 0]])


def test_another_description_is_another_space(tmp_path: Path) -> None:
    first = FeatureCache(tmp_path, {"cut": 1, "precision": "float32"})
    append(first, [0])
    for description in ({"cut": 2, "precision": "float32"}, {"cut": 1}, {"cut": 1, "precision": "bfloat16"}):
        assert FeatureCache(tmp_path, description).rows.count == 0
    same = FeatureCache(tmp_path, {"precision": "float32", "cut": 1})
    check(same, [0])
    assert json.loads((same.folder / "space.json").read_text()) == {"cut": 1, "precision": "float32"}


@pytest.mark.parametrize("seed", range(12))
def test_a_process_killed_at_any_moment_leaves_whole_rows(tmp_path: Path, seed: int) -> None:
    """Cut every file at a random length, which is more than a killed process can do."""
    draw = random.Random(seed)
    cache = FeatureCache(tmp_path, {})
    append(cache, [0, 1, 2, 3])
    append(cache, [4, 5, 6, 7])
    for path in cache.folder.glob("*.bin"):
        if draw.random() < 0.7:
            path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size + 1)])
    again = FeatureCache(tmp_path, {})
    left = [number for number in range(8) if identity(number) in again.rows]
    assert left == list(range(len(left)))
    check(again, left)
    append(again, [9, 3, 7])
    check(again, [*left, 9, 3, 7])
    check(FeatureCache(tmp_path, {}), [*left, 9, 3, 7])


def test_half_a_row_behind_the_last_one_is_not_seen(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    append(cache, [0, 1])
    for path in cache.folder.glob("*.bin"):
        with path.open("ab") as file:
            file.write(b"\xff")
    check(cache, [0, 1])
    again = FeatureCache(tmp_path, {})
    check(again, [1, 0])
    append(again, [2])
    check(again, [0, 1, 2])
    assert again.folder.joinpath("ids.bin").stat().st_size == 3 * 32


def test_a_layout_without_rows_is_taken_up_again(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    append(cache, [0])
    for path in cache.folder.glob("*.bin"):
        path.unlink()
    again = FeatureCache(tmp_path, {})
    assert again.read([])["half"].shape == (0, 5)
    append(again, [1])
    check(again, [1])


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    append(cache, [0])
    for other in ({"x": torch.zeros(1, 4)}, {**rows_of([1]), "half": torch.zeros(1, 5)}):
        with pytest.raises(RunError, match="another shape"):
            cache.append([identity(1)], other)
    check(FeatureCache(tmp_path, {}), [0])


APPENDING = """
import sys
from pathlib import Path
from tests.frozen.test_cache import FeatureCache, append
folder, *numbers = sys.argv[1:]
cache = FeatureCache(Path(folder), {})
for number in range(*map(int, numbers)):
    append(cache, [number, number + 1])
"""


@pytest.mark.slow
def test_two_processes_append_at_once(tmp_path: Path) -> None:
    script, folder = tmp_path / "appending.py", tmp_path / "cache"
    script.write_text(APPENDING)
    running = [Command(str(script), [str(folder), *numbers.split()]) for numbers in ("0 40 2", "20 61 2")]
    cache = FeatureCache(folder, {})
    for number in range(100, 110):
        append(cache, [number])
        check(cache, [100, number])
    assert [process.wait(60) for process in running] == [0, 0]
    again = FeatureCache(folder, {})
    assert len(again.rows) == 62 + 10
    check(again, [*range(62), *range(100, 110)])


def test_a_space_that_is_removed_while_it_is_opened_is_made_again(tmp_path: Path) -> None:
    append(FeatureCache(tmp_path, {}), [0])
    folder = space_folder(tmp_path, {})
    with ThreadPoolExecutor(1) as threads, (folder / IN_USE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        opening = threads.submit(FeatureCache, tmp_path, {})
        with pytest.raises(TimeoutError):
            opening.result(0.3)
        folder.rename(tmp_path / "gone")
        fcntl.flock(file, fcntl.LOCK_UN)
        cache = opening.result(30)
    append(cache, [1])
    check(FeatureCache(tmp_path, {}), [1])
    assert len(cache.rows) == 1


def test_a_folder_that_cannot_be_made_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match=r"file cannot be written \(Not a directory\); give --cache another"):
        FeatureCache(tmp_path / "file", {})


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISIONADAPT_CACHE", "~/own")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / "own"
    monkeypatch.delenv("VISIONADAPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_folder() == Path("/xdg/visionadapt")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == tmp_path / ".cache" / "visionadapt"
