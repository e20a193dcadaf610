"""Items of many threads are answered in batches, each with its own result."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from visionadapt.serve.batching import Batcher


class Machine:
    """Reads and computes what a test asks for, and notes each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.slow = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def read(self, item: int) -> int:
        if item < 0:
            raise ValueError(str(item))
        if item == 1000:
            assert self.slow.wait(30)
        return item

    def compute(self, batch: Sequence[int]) -> list[int]:
        assert self.open.wait(30)
        self.batches.append(list(batch))
        if 13 in batch:
            raise RuntimeError("thirteen")
        return [10 * item for item in batch]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def batcher(machine: Machine) -> Iterator[Batcher[int, int, int]]:
    made = Batcher(machine.read, machine.compute, size=4, seconds=0.05, waiting=10, threads=2)
    made.start()
    yield made
    machine.slow.set()
    machine.open.set()
    made.close()


def test_each_gets_its_own_answer_and_no_batch_is_too_large(batcher: Batcher[int, int, int], machine: Machine) -> None:
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(lambda item: batcher.submit([item])[0].result(30), range(1, 9))) == [
            10 * item for item in range(1, 9)
        ]
    assert max(map(len, machine.batches)) <= 4
    assert sorted(itertools.chain(*machine.batches)) == list(range(1, 9))


def test_an_item_that_cannot_be_read_fails_alone(batcher: Batcher[int, int, int]) -> None:
    sound, wrong = batcher.submit([1, -1])
    assert sound.result(30) == 10
    with pytest.raises(ValueError, match="-1"):
        wrong.result(30)


def test_a_failed_batch_is_followed_by_others(
    batcher: Batcher[int, int, int], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="thirteen"):
        batcher.submit([13])[0].result(30)
    assert "failed" in caplog.text
    assert batcher.submit([2])[0].result(30) == 20


def test_what_takes_long_to_read_does_not_hold_up_the_others(batcher: Batcher[int, int, int], machine: Machine) -> None:
    (late,) = batcher.submit([1000])
    assert [batcher.submit([item])[0].result(30) for item in range(3)] == [0, 10, 20]
    assert not late.done()
    machine.slow.set()
    assert late.result(30) == 10_000


def test_no_more_may_wait_than_is_allowed(batcher: Batcher[int, int, int], machine: Machine) -> None:
    machine.open.clear()
    waiting = batcher.submit(range(10))
    with pytest.raises(queue.Full):
        batcher.submit([10])
    waiting[-1].cancel()
    (again,) = batcher.submit([11])
    machine.open.set()
    assert [future.result(30) for future in waiting[:-1]] == [10 * item for item in range(9)]
    assert again.result(30) == 110
    assert 9 not in itertools.chain(*machine.batches)


def test_closing_answers_what_was_submitted_before(machine: Machine) -> None:
    made = Batcher(machine.read, machine.compute, size=2, seconds=0.01, waiting=10, threads=1)
    answers = made.submit(range(5))
    made.start()
    made.close()
    assert [answer.result(0) for answer in answers] == [0, 10, 20, 30, 40]
