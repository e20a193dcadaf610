"""The table of identities agrees with a plain dict, however it has grown."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.frozen.cache import index
from visionadapt.frozen.cache.index import ID_BYTES, Identities


def identity(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def write(file: Path, rows: list[bytes]) -> None:
    file.write_bytes(b"".join(rows))


@pytest.mark.slow
@pytest.mark.parametrize("tail", [0, 3, 10**6])
@given(steps=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6))
def test_it_agrees_with_a_dict(tmp_path_factory: pytest.TempPathFactory, tail: int, steps: list[list[int]]) -> None:
    file = tmp_path_factory.mktemp("ids") / "ids.bin"
    rows: list[bytes] = []
    expected: dict[bytes, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_TAIL", tail)
        table = Identities(file)
        for step in steps:
            for number in step:
                expected.setdefault(identity(number), len(rows))
                rows.append(identity(number))
            write(file, rows)
            table.grow(len(rows))
            assert len(table) == len(rows)
            assert {number: table.get(identity(number)) for number in range(32)} == {
                number: expected.get(identity(number)) for number in range(32)
            }


def test_identities_with_equal_beginnings_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_TAIL", 0)
    alike = [b"8 bytes." + bytes([number]) * (ID_BYTES - 8) for number in range(5)]
    write(tmp_path / "ids.bin", alike)
    table = Identities(tmp_path / "ids.bin")
    table.grow(5)
    assert [table[row] for row in alike] == [0, 1, 2, 3, 4]
    assert b"8 bytes." + bytes([9]) * (ID_BYTES - 8) not in table
    copy = pickle.loads(pickle.dumps(table))
    assert [copy[row] for row in alike] == [0, 1, 2, 3, 4]


def test_what_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    table = Identities(tmp_path / "missing.bin")
    assert identity(0) not in table
    assert "no identity" not in table
    with pytest.raises(KeyError, match=identity(0).hex()):
        table[identity(0)]
