"""Read rows ahead of their decoding, several at once, where a source waits for a store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from visionadapt.data.dataset import Rows

Row = TypeVar("Row")


def opened(rows: Rows[Row], order: Sequence[int]) -> Iterator[Callable[[], Row]]:
    """Yield for each row, in order, the function that decodes it; what reading has raised is raised by the function.

    Rows that are on this machine are read one after another, when they are asked for. At most twice
    `rows.reads_ahead` others are in memory at once.
    """
    if not rows.reads_ahead:
        yield from (rows.opened(index) for index in order)
        return
    waiting: deque[Future[Callable[[], Row]]] = deque()
    with ThreadPoolExecutor(rows.reads_ahead) as pool:
        try:
            for index in order:
                waiting.append(pool.submit(rows.opened, index))
                if len(waiting) == 2 * rows.reads_ahead:
                    yield _decoding(waiting.popleft())
            while waiting:
                yield _decoding(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()


def _decoding(reading: Future[Callable[[], Row]]) -> Callable[[], Row]:
    reading.exception()  # waits
    return lambda: reading.result()()
