"""Wait for the answers to the images of one request."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Sequence
from typing import TypeVar

from visionadapt.serve.batching import Batcher
from visionadapt.serve.limits import RequestError, busy

Item = TypeVar("Item")
Read = TypeVar("Read")
Answer = TypeVar("Answer")


async def answered(
    batcher: Batcher[Item, Read, Answer], items: Sequence[Item], seconds: float
) -> list[Answer | RequestError]:
    """Return the answers to all images of a request, and in place of some why they could not be used.

    A request waits for its turn as long as batches before it begin: the queue is bounded, so its turn comes. The limit
    holds for what stands still, and for its own images.

    Args:
        batcher: answers them.
        items: the images.
        seconds: for which no batch may begin while an image waits, and that the images themselves may take.

    Raises:
        RequestError: it waits behind too many others (503), or too long.
    """
    try:
        jobs = batcher.submit(items)
    except queue.Full:
        raise busy() from None
    waiting: list[asyncio.Future[Answer]] = [asyncio.wrap_future(job) for job in jobs]
    try:
        while True:
            begun, queued = batcher.begun, any(not job.running() and not job.done() for job in jobs)
            _, pending = await asyncio.wait(waiting, timeout=seconds)
            if not pending:
                break
            if not queued or batcher.begun == begun:
                raise RequestError(503, f"the answer takes longer than {seconds:g} s; try again", wait=5)
    finally:
        for future in waiting:
            future.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    failed = next((each for each in outcomes if isinstance(each, BaseException) and not _refused(each)), None)
    if failed is not None:
        raise failed
    return [each for each in outcomes if not isinstance(each, BaseException) or isinstance(each, RequestError)]


def _refused(outcome: BaseException) -> bool:
    return isinstance(outcome, RequestError)
