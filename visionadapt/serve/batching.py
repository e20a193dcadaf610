"""`Batcher`: items of many requests, read in threads and answered together in one worker thread."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from visionadapt.system.process import start_no_threads

Item = TypeVar("Item")
Read = TypeVar("Read")
Answer = TypeVar("Answer")

LATE_SECONDS = 0.2
"""Seconds that a batch waits for its items to be read; those that take longer join a later one."""

_log = logging.getLogger("visionadapt")


@dataclass
class _Job:
    item: Any
    answer: Future[Any]
    reading: Future[Any] | None = None


class Batcher(Generic[Item, Read, Answer]):
    """Answers items in batches.

    Reading and computing alternate, as in `Predictor.stream`: threads that decode while others compute would keep these
    waiting for a core. Only what takes long to read is read beside the next batches.

    Args:
        read: reads one item; called in threads.
        compute: answers what was read, in order; called in one thread.
        size: most items of a batch.
        seconds: how long the first item of a batch waits for others.
        waiting: most items that wait for their answers.
        threads: number of threads that read.

    Attributes:
        begun: number of batches that have begun.
    """

    def __init__(
        self,
        read: Callable[[Item], Read],
        compute: Callable[[Sequence[Read]], Sequence[Answer]],
        *,
        size: int,
        seconds: float,
        waiting: int,
        threads: int,
    ) -> None:
        self.begun = 0
        self._read, self._compute = read, compute
        self._size, self._seconds = size, seconds
        self._free, self._lock = waiting, threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(threads, "read", initializer=start_no_threads)
        self._worker = threading.Thread(target=self._work, name="answer", daemon=True)

    def start(self) -> None:
        """Start the worker thread."""
        self._worker.start()

    def close(self) -> None:
        """Answer what was submitted before, and end the threads."""
        self._jobs.put(None)
        self._worker.join()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, items: Sequence[Item]) -> list[Future[Answer]]:
        """Return the future answers of items, all or none; cancelling one takes its item out of the queue.

        Raises:
            queue.Full: too many items are waiting.
        """
        with self._lock:
            if len(items) > self._free:
                raise queue.Full
            self._free -= len(items)
        answers: list[Future[Answer]] = [Future() for _ in items]
        for item, answer in zip(items, answers, strict=True):
            answer.add_done_callback(self._release)
            self._jobs.put(_Job(item, answer))
        return answers

    def _release(self, answer: Future[Answer]) -> None:
        with self._lock:
            self._free += 1

    def _work(self) -> None:
        going_on = True
        while going_on:
            jobs, going_on = self._collected()
            self.begun += 1
            for job in jobs:
                job.reading = job.reading or self._pool.submit(self._read, job.item)
            wait([job.reading for job in jobs if job.reading], LATE_SECONDS if going_on else None)
            self._answer([job for job in jobs if job.reading and job.reading.done()])
            for job in jobs:
                if job.reading and not job.answer.done():
                    self._join_later(job, job.reading)

    def _join_later(self, job: _Job, reading: Future[Any]) -> None:
        reading.add_done_callback(lambda _: self._jobs.put(job))

    def _collected(self) -> tuple[list[_Job], bool]:
        """Return the jobs of the next batch, and whether others may follow."""
        jobs: list[_Job] = []
        end = 0.0
        while len(jobs) < self._size:
            try:
                job = self._jobs.get(timeout=max(end - time.monotonic(), 0) if jobs else None)
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            end = end or time.monotonic() + self._seconds
            if job.reading is not None or job.answer.set_running_or_notify_cancel():
                jobs.append(job)
        return jobs, True

    def _answer(self, jobs: list[_Job]) -> None:
        """Compute the answers of jobs that are read; an error becomes the answer."""
        read: list[Read] = []
        sound: list[_Job] = []
        for job in jobs:
            assert job.reading is not None
            error = job.reading.exception()
            if error is not None:
                job.answer.set_exception(error)
            else:
                read.append(job.reading.result())
                sound.append(job)
        if not sound:
            return
        try:
            answers = self._compute(read)
        except Exception as error:  # noqa: BLE001 - the answer of every image in the batch
            _log.exception("a batch of %d images failed", len(read))
            for job in sound:
                job.answer.set_exception(error)
            return
        for job, answer in zip(sound, answers, strict=True):
            job.answer.set_result(answer)
