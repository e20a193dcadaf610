"""The order of an epoch: a permutation that is computed a place at a time, and looks like a random one."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from visionadapt.data.order import Shuffle, balanced_order

KEPT = 1 << 15


@settings(max_examples=25)
@given(st.one_of(st.integers(0, 50), st.integers(KEPT - 2, 3 * KEPT)), st.integers(0, 5), st.integers(0, 5))
def test_it_is_a_permutation(rows: int, seed: int, epoch: int) -> None:
    order = np.array(list(Shuffle(rows, seed, epoch)), dtype=np.int64)
    assert np.array_equal(np.sort(order), np.arange(rows))


@pytest.mark.slow
@settings(max_examples=50)
@given(st.sampled_from([7, KEPT, KEPT + 1, 2 * KEPT + 77]), st.slices(2 * KEPT + 99), st.integers(-9, 9))
def test_it_is_looked_at_like_a_list(rows: int, part: slice, place: int) -> None:
    order, listed = Shuffle(rows, 1, 2), LISTS.setdefault(rows, list(Shuffle(rows, 1, 2)))
    assert len(order) == rows
    assert order[part] == listed[part]
    assert order[KEPT - 3 : KEPT + 3] == listed[KEPT - 3 : KEPT + 3]
    if -rows <= place < rows:
        assert order[place] == listed[place]
    for outside in (rows, -rows - 1):
        with pytest.raises(IndexError):
            order[outside]


LISTS: dict[int, list[int]] = {}


def test_ten_million_rows_take_no_memory() -> None:
    tracemalloc.start()
    order = Shuffle(10**7, 0, 0)
    rows = [order[place] for place in (0, 10**7 - 1, 5_000_000)] + order[100:132]
    assert len(set(rows)) == len(rows) and max(rows) < 10**7
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_it_looks_random() -> None:
    """Ranks of neighbours, of places and of other epochs' and seeds' orders do not go together."""
    rows = 50_000
    orders = [np.array(list(Shuffle(rows, seed, epoch))) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    bound = 4.5 / np.sqrt(rows)
    for order in orders:
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < bound
        assert abs(np.corrcoef(order, np.arange(rows))[0, 1]) < bound
        counts, _, _ = np.histogram2d(np.arange(rows), order, bins=20)
        assert stats.chisquare(counts.ravel(), ddof=2 * 20 - 2).pvalue > 1e-4
        assert (order == np.arange(rows)).sum() <= 8, "a random permutation has one fixed point on average"
        ascending = sum(first + 1 == second for first, second in pairwise(order.tolist()))
        assert ascending <= 8, "and one pair of neighbours"
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(orders[first], orders[second])[0, 1]) < bound
        assert (orders[first] == orders[second]).sum() <= 8


def test_it_is_the_same_everywhere() -> None:
    assert Shuffle(10**7, 0, 0)[:4] == GOLDEN
    assert list(Shuffle(8, 0, 0)) == [1, 2, 0, 7, 4, 6, 3, 5]


def by_hand(rows: int, seed: int, epoch: int, place: int) -> int:
    """The same network in plain integers."""
    from visionadapt.core.naming import stable_hash

    bits = (rows - 1).bit_length()
    low = bits // 2
    masks = ((1 << low) - 1, (1 << (bits - low)) - 1)
    number = place
    while True:
        halves = [number & masks[0], number >> low]
        for step in range(10):
            mixed = halves[1 - step % 2] ^ stable_hash(seed, "order", epoch, step)
            mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
            halves[step % 2] ^= (mixed ^ (mixed >> 31)) & masks[step % 2]
        number = halves[0] | (halves[1] << low)
        if number < rows:
            return number


GOLDEN = [by_hand(10**7, 0, 0, place) for place in range(4)]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 5))
def test_a_balanced_order_has_each_class_equally_often_and_repeats_none_needlessly(own: list[int], epoch: int) -> None:
    labels = torch.tensor(own)
    order = balanced_order(labels, 7, epoch)
    assert order == balanced_order(labels, 7, epoch)
    assert len(order) == len(own)
    times = np.bincount([own[row] for row in order], minlength=4)[np.unique(own)]
    assert times.max() - times.min() <= 1
    for label in set(own):
        repeats = np.bincount(order, minlength=len(own))[np.array(own) == label]
        assert repeats.max() - repeats.min() <= 1


def test_a_balanced_order_is_another_one_in_each_epoch() -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    orders = {tuple(balanced_order(labels, 0, epoch)) for epoch in range(4)}
    assert len(orders) == 4
    assert set().union(*orders) == set(range(40))
