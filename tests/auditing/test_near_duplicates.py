"""The search in blocks against a plain loop over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from visionadapt.auditing.near_duplicates import ALIKE, near_pairs


def made_up(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes, thumbnails and features in clusters, with copies of growing distance, every other one mirrored."""
    generator = np.random.default_rng(seed)
    cluster = generator.integers(0, 6, rows)
    features = generator.normal(size=(6, 160))[cluster] + generator.normal(size=(rows, 160))
    bits = generator.integers(0, 2, (2, 6, 128))[:, cluster] ^ (generator.random((2, rows, 128)) < 0.3)
    lumas = generator.integers(0, 256, (rows, 64, 64), dtype=np.uint8)
    for row in range(1, rows, 7):
        distance = row / rows
        features[row] = features[row - 1] + distance * generator.normal(size=160)
        mirrored = row % 2
        bits[:, row] = bits[:: -1 if mirrored else 1, row - 1] ^ (generator.random(128) < 0.2 * distance)
        lumas[row] = lumas[row - 1][:, :: -1 if mirrored else 1]
    return np.packbits(bits, axis=2), lumas, features.astype(np.float32)


def by_hand(hashes: np.ndarray, lumas: np.ndarray, features: np.ndarray) -> dict[tuple[int, int], float]:
    """The likeness of each pair of copies that is alike, pair by pair; thumbnails are equal or unrelated."""
    found = {}
    wide = features.astype(np.float64)
    total = wide.sum(axis=0)
    bits = np.unpackbits(hashes, axis=2).astype(int)
    for first, second in combinations(range(len(wide)), 2):
        centre = (total - wide[first] - wide[second]) / (len(wide) - 2) if len(wide) > 2 else 0.0
        one, two = wide[first] - centre, wide[second] - centre
        cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
        likeness = cosine - np.abs(bits[0, first] - bits[:, second]).sum(axis=1).min() / 100
        copies = [(lumas[first] == luma).all() for luma in (lumas[second], lumas[second][:, ::-1])]
        if likeness >= ALIKE and any(copies):
            found[first, second] = likeness
    return found


def by_blocks(*arrays: np.ndarray) -> dict[tuple[int, int], bool]:
    """Whether each pair that is found is mirrored."""
    found: dict[tuple[int, int], bool] = {}
    for pairs in near_pairs(*arrays):
        for first, second, score, mirrored in zip(*(part.tolist() for part in pairs), strict=True):
            assert (first, second) not in found
            assert score == pytest.approx(1, abs=1e-4)
            found[first, second] = mirrored
    return found


@pytest.mark.parametrize("rows", [2, 3, 40, 200])
def test_of_few_rows_every_pair_is_compared(rows: int) -> None:
    arrays = made_up(rows, rows)
    expected, found = by_hand(*arrays), by_blocks(*arrays)
    assert found.keys() == expected.keys()
    assert all(mirrored == max(pair) % 2 for pair, mirrored in found.items())


@pytest.mark.slow
def test_of_many_rows_all_clear_pairs_are_found_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionadapt.auditing.near_duplicates._ROWS", 64)
    monkeypatch.setattr("visionadapt.auditing.near_duplicates._COLUMNS", 100)
    arrays = made_up(420, 0)
    expected, found = by_hand(*arrays), by_blocks(*arrays)
    assert len(expected) > 30
    assert found.keys() <= expected.keys()
    assert {pair for pair, score in expected.items() if score > ALIKE + 0.05} <= found.keys()


def test_one_row_or_none_has_no_neighbour() -> None:
    for rows in (0, 1):
        hashes, lumas = np.zeros((2, rows, 16), np.uint8), np.zeros((rows, 64, 64), np.uint8)
        assert by_blocks(hashes, lumas, np.ones((rows, 8), np.float32)) == {}
