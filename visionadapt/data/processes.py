"""Read rows in worker processes over pipes: without shared memory, and without waiting for a process that is gone."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from visionadapt.data.ahead import opened
from visionadapt.data.dataset import Rows
from visionadapt.errors import SourceError, VisionAdaptError
from visionadapt.system.process import STARTS_AGAIN

Row = TypeVar("Row")

ROWS_AT_ONCE = 8
_CHUNKS_AHEAD = 2
"""Chunks of rows that a worker has been asked for: one to work on, and the next."""
_SECONDS_TO_END = 5.0
_CRASHES = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT") if hasattr(signal, name)
)
_NOT_STARTED = (
    AssertionError,
    OSError,
    EOFError,
    RuntimeError,
    AttributeError,
    TypeError,
    ValueError,
    pickle.PicklingError,
)
"""What starting a process raises for lack of memory or handles, in a daemon, or for rows that cannot be pickled."""


class WorkersLostError(Exception):
    """Worker processes could not be started, or were ended by the system; the rows yielded so far are complete."""


def in_processes(rows: Rows[Row], order: Sequence[int], workers: int) -> Iterator[Row]:
    """Yield the rows in `order`, which processes read ahead.

    Raises:
        WorkersLostError: the processes cannot be used here.
        SourceError: one crashed while it decoded an image.
    """
    chunks = (order[start : start + ROWS_AT_ONCE] for start in range(0, len(order), ROWS_AT_ONCE))
    pool: list[_Worker[Row]] = []
    asked: deque[_Worker[Row]] = deque()
    try:
        for _ in range(min(workers, -(-len(order) // ROWS_AT_ONCE))):
            pool.append(_Worker(rows, pool))
        for worker in pool * _CHUNKS_AHEAD:
            _ask(worker, chunks, asked)
        while asked:
            worker = asked.popleft()
            found = worker.answer()
            _ask(worker, chunks, asked)
            for row in found:
                if isinstance(row, _Failure):
                    raise row.error
                yield row
    finally:
        for worker in pool:
            worker.end()


def begin_worker(worker: int = 0) -> None:
    """Use one thread per process, and leave signals to the main process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@dataclass(frozen=True)
class _Failure:
    """What a worker raised instead of returning a row."""

    error: Exception


class _Worker(Generic[Row]):
    """A process that reads rows, and the pipe to it."""

    def __init__(self, rows: Rows[Row], earlier: Sequence[_Worker[Row]]) -> None:
        context = multiprocessing.get_context("spawn" if rows.reads_ahead else None)
        self._rows, self._chunks = rows, deque[Sequence[int]]()
        self._pipe, theirs = context.Pipe()
        # a forked process must not hold the other ends of pipes open: they shall end with the main process
        forked = context.get_start_method() == "fork"
        inherited = [*(worker._pipe for worker in earlier), self._pipe] if forked else []
        self._process = context.Process(target=_work, args=(rows, theirs, inherited), daemon=True)
        try:
            self._process.start()
        except _NOT_STARTED as error:
            self._pipe.close()
            raise WorkersLostError(f"cannot be started ({_first_line(error)})") from error
        finally:
            theirs.close()

    def ask(self, chunk: Sequence[int]) -> None:
        """Ask for some rows."""
        self._chunks.append(chunk)
        with suppress(OSError):  # the process is gone, which its answer will tell
            self._pipe.send(list(chunk))

    def answer(self) -> list[Row | _Failure]:
        """Return the rows that were asked for first."""
        chunk = self._chunks.popleft()
        try:
            found: list[Row | _Failure] = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._lost(chunk) from error
        return found

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(_SECONDS_TO_END)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()

    def _lost(self, chunk: Sequence[int]) -> Exception:
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode
        if code == STARTS_AGAIN:
            return WorkersLostError("ran the script again: call this below `if __name__ == '__main__':`")
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if code is not None and -code in _CRASHES:
            files = ", ".join(self._rows.name(index) for index in chunk)
            return SourceError(
                f"decoding crashed ({name}), at one of these files: {files}; leave it out, or update image libraries"
            )
        why = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return WorkersLostError(f"ended too early ({name}{why})")


def _ask(worker: _Worker[Row], chunks: Iterator[Sequence[int]], asked: deque[_Worker[Row]]) -> None:
    """Ask a worker for the next chunk of rows, if there is one."""
    chunk = next(chunks, None)
    if chunk is not None:
        worker.ask(chunk)
        asked.append(worker)


def _work(rows: Rows[Any], pipe: Connection, inherited: Sequence[Connection]) -> None:
    """Answer until the main process closes the pipe or ends."""
    for other in inherited:
        other.close()
    begin_worker()
    with suppress(EOFError, OSError):
        while True:
            order = pipe.recv()
            ahead = opened(rows, order) if rows.reads_ahead else (partial(rows.__getitem__, index) for index in order)
            pipe.send_bytes(_pickled([_row_of(decode) for decode in ahead]))


def _row_of(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except Exception as error:  # noqa: BLE001 - raised in the main process
        return _Failure(_portable(error))


def _portable(error: Exception) -> Exception:
    """Return an error, with its traceback as a note unless it is the user's, or what can be pickled in its place."""
    if not isinstance(error, VisionAdaptError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001 - an error of anybody's class
        return RuntimeError("".join(traceback.format_exception(error)))


class _Pickler(pickle.Pickler):
    """Writes tensors as arrays: torch's own way would move them to shared memory, which containers have little of."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _pickled(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getvalue()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
