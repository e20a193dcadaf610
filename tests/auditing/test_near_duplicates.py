"""The search in blocks against a plain loop over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from visionadapt.auditing.near_duplicates import THRESHOLD, near_pairs


def made_up(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes, thumbnails and features in clusters, with copies of growing distance."""
    generator = np.random.default_rng(seed)
    cluster = generator.integers(0, 6, rows)
    features = generator.normal(size=(6, 160))[cluster] + generator.normal(size=(rows, 160))
    bits = generator.integers(0, 2, (6, 128))[cluster] ^ (generator.random((rows, 128)) < 0.3)
    lumas = generator.integers(0, 256, (rows, 32, 32), dtype=np.uint8)
    for row in range(1, rows, 7):
        distance = row / rows
        features[row] = features[row - 1] + distance * generator.normal(size=160)
        bits[row] = bits[row - 1] ^ (generator.random(128) < 0.2 * distance)
        lumas[row] = lumas[row - 1]
    return np.packbits(bits, axis=1), lumas, features.astype(np.float32)


def by_hand(hashes: np.ndarray, lumas: np.ndarray, features: np.ndarray) -> dict[tuple[int, int], float]:
    """The score of each pair that reaches the threshold, pair by pair; thumbnails are equal or unrelated."""
    found = {}
    wide = features.astype(np.float64)
    total = wide.sum(axis=0)
    bits = np.unpackbits(hashes, axis=1).astype(int)
    for first, second in combinations(range(len(wide)), 2):
        centre = (total - wide[first] - wide[second]) / (len(wide) - 2) if len(wide) > 2 else 0.0
        one, two = wide[first] - centre, wide[second] - centre
        cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
        differing = np.abs(bits[first] - bits[second]).sum()
        if cosine - differing / 100 >= THRESHOLD and (lumas[first] == lumas[second]).all():
            found[first, second] = cosine - differing / 100
    return found


def by_blocks(*arrays: np.ndarray) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for pairs in near_pairs(*arrays):
        for first, second, score in zip(*(part.tolist() for part in pairs), strict=True):
            assert (first, second) not in found
            found[first, second] = score
    return found


@pytest.mark.parametrize("rows", [2, 3, 40, 200])
def test_of_few_rows_every_pair_is_compared(rows: int) -> None:
    arrays = made_up(rows, rows)
    expected, found = by_hand(*arrays), by_blocks(*arrays)
    assert found.keys() == expected.keys()
    for pair, score in expected.items():
        assert found[pair] == pytest.approx(score, abs=1e-4)


def test_of_many_rows_all_clear_pairs_are_found_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionadapt.auditing.near_duplicates._ROWS", 64)
    monkeypatch.setattr("visionadapt.auditing.near_duplicates._COLUMNS", 100)
    arrays = made_up(420, 0)
    expected, found = by_hand(*arrays), by_blocks(*arrays)
    assert len(expected) > 30
    assert found.keys() <= expected.keys()
    assert {pair for pair, score in expected.items() if score > THRESHOLD + 0.05} <= found.keys()


def test_one_row_or_none_has_no_neighbour() -> None:
    for rows in (0, 1):
        hashes, lumas = np.zeros((rows, 16), np.uint8), np.zeros((rows, 32, 32), np.uint8)
        assert by_blocks(hashes, lumas, np.ones((rows, 8), np.float32)) == {}
