"""Row numbers: a sequence of integers in four bytes each, which fresh processes map from one file."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
from array import array
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from visionadapt.core.columns import RowNumbers


@given(st.lists(st.integers(0, 2**32 - 1), max_size=9))
def test_they_are_the_list_of_their_numbers(numbers: list[int]) -> None:
    for rows in (RowNumbers(numbers), RowNumbers(iter(numbers)), RowNumbers(array("I", numbers))):
        assert list(rows) == numbers and len(rows) == len(numbers)
        assert [rows[place] for place in range(-len(numbers), len(numbers))] == numbers * 2
        assert list(rows[1:3]) == numbers[1:3]
        assert list(pickle.loads(pickle.dumps(rows))) == numbers


def _facts(rows: RowNumbers, queue: multiprocessing.Queue[tuple[int, int, bool]]) -> None:
    queue.put((len(rows), sum(rows[:1000]), isinstance(rows[:0], memoryview)))


def test_a_fresh_process_maps_them_from_one_file_that_goes_with_them() -> None:
    context = multiprocessing.get_context("spawn")
    count = 1 << 18
    rows = RowNumbers(range(7, count + 7))
    queue: multiprocessing.Queue[tuple[int, int, bool]] = context.Queue()
    process = context.Process(target=_facts, args=(rows, queue))
    process.start()
    assert queue.get(timeout=60) == (count, sum(range(7, 1007)), True)
    process.join()
    path = Path(rows._file())
    assert path.stat().st_size == 4 * count
    del rows
    gc.collect()
    assert not path.exists()
