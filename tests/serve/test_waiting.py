"""A request waits for its turn as long as the queue moves, and no longer than its limit where it does not."""

from __future__ import annotations

import asyncio
import queue
from concurrent.futures import Future
from typing import Any

import pytest

from visionadapt.serve.limits import RequestError
from visionadapt.serve.waiting import answered

SECONDS = 0.01


class Line:
    """A queue whose `begun` moves each time that it is read, and which answers at the read number `answered_at`."""

    def __init__(self, answered_at: int, *, moves: bool = True, running: bool = False) -> None:
        self.job: Future[int] = Future()
        self.reads, self.answered_at, self.moves, self.starts_at_once = 0, answered_at, moves, running

    def submit(self, items: list[int]) -> list[Future[int]]:
        if len(items) > 1:
            raise queue.Full
        if self.starts_at_once:
            self.job.set_running_or_notify_cancel()
        return [self.job]

    @property
    def begun(self) -> int:
        self.reads += 1
        if self.reads == self.answered_at:
            self.job.set_result(7)
        return self.reads if self.moves else 0


def asked(line: Any, count: int = 1) -> list[int | RequestError]:
    return asyncio.run(answered(line, list(range(count)), SECONDS))


def test_a_queue_that_moves_is_waited_for_longer_than_the_limit() -> None:
    line = Line(answered_at=20)
    assert asked(line) == [7] and line.reads >= 20


@pytest.mark.parametrize("line", [Line(0, moves=False), Line(0, running=True)], ids=["still", "own image"])
def test_what_stands_still_is_given_up(line: Line) -> None:
    with pytest.raises(RequestError) as caught:
        asked(line)
    assert (caught.value.status, caught.value.wait) == (503, 5) and line.reads <= 2
    assert line.job.cancelled() or line.starts_at_once


def test_more_than_may_wait_are_sent_away_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        asked(Line(0), 2)
    assert caught.value.status == 503
