"""Load rows in threads or worker processes, and make batches of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from visionadapt.core.records import Manifest, Source, manifest_of
from visionadapt.core.settings import WantedTask
from visionadapt.data.dataset import PLAIN, ImageDataset, Rows, Sample
from visionadapt.data.order import Shuffle
from visionadapt.data.splits import task_of
from visionadapt.errors import UsageError
from visionadapt.images import Preprocessing, augmentation
from visionadapt.system.process import start_no_threads
from visionadapt.tasks import TaskName, plain_task

Row = TypeVar("Row")


def samples(rows: Rows[Row], workers: int = 0, order: Sequence[int] | None = None) -> Iterator[Row]:
    """Yield the rows one by one, in manifest order or in `order`; `workers` processes read ahead and change nothing.

    Without them files are opened here and decoded in threads, which pause while the caller computes. A `UsageError`
    in a worker is raised here as it was there, in one line.
    """
    places = range(len(rows)) if order is None else order
    if not workers:
        yield from _in_threads(rows, places)
        return
    loading: DataLoader[Any] = DataLoader(
        _Told(rows),
        batch_size=8,
        sampler=places,
        num_workers=workers,
        collate_fn=_as_list,
        worker_init_fn=_begin_worker,
    )
    for batch in loading:
        for row in batch:
            if isinstance(row, UsageError):
                raise row
            yield row


def _in_threads(rows: Rows[Row], order: Sequence[int]) -> Iterator[Row]:
    """The rows, some for each thread at a time; no thread is at work while the caller is."""
    threads = threads_for(rows)
    if threads == 1:
        yield from (rows[index] for index in order)
        return
    with ThreadPoolExecutor(threads, initializer=start_no_threads) as pool:
        for start in range(0, len(order), ROWS_A_THREAD * threads):
            some = order[start : start + ROWS_A_THREAD * threads]
            waiting = [pool.submit(rows.opened(index)) for index in some]
            wait(waiting)
            for result in waiting:
                yield result.result()


def threads_for(rows: Rows[Any]) -> int:
    """How many threads may decode at once."""
    return 1 if rows.one_by_one else max(torch.get_num_threads(), 1)


ROWS_A_THREAD = 16
"""Files that wait at once, for each thread: more of them even the work out, and take more memory."""


@dataclass(frozen=True)
class _Told(Dataset[Row | UsageError]):
    """Rows, with errors that are the user's to mend in their places: a loader would rewrite them."""

    rows: Rows[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row | UsageError:
        try:
            return self.rows[index]
        except UsageError as error:
            return error


def loader(
    rows: Source | Manifest,
    prepare: Preprocessing,
    batch_size: int = 32,
    *,
    augment: Any = "none",
    epoch: int = 0,
    seed: int = 0,
    shuffle: bool = False,
    workers: int = 0,
    task: WantedTask = "auto",
) -> DataLoader[Any]:
    """Return a DataLoader over `rows`; a batch is a dict, the same whatever the source:

    - `image`: uint8 [B, 3, S, S]; `prepare.device(batch["image"])` normalises it, on any device;
    - `label`: int64 [B], −1 where a row has none; where the task is `multilabel`, or `auto` and some row has several
      labels, float32 [B, C] of zeros and ones;
    - `key`: list of B keys;
    - `rejected`: list of (key, reason) of rows that could not be used: they are in no other entry.

    With an augmentation, every epoch sees another view of each picture; the view depends on seed, epoch and key alone.

    Args:
        rows: a source, or a part of one from `split`.
        prepare: decoding and resizing are done here; normalisation is left to `prepare.device`.
        batch_size: rows a batch; the last one may be smaller.
        augment: a preset's name, an `Augmentation`, or a pipeline of your own.
        epoch, seed: settle the views, and the order where `shuffle` is set.
        shuffle: another order in every epoch instead of the rows' own.
        workers: processes that read pictures; 0 reads in this one.
        task: whether labels are class indices or zeros and ones.

    Raises:
        UsageError: while iterating, pictures of a batch differ in size, for lack of a `ResizeAdapter` in `prepare`.
    """
    manifest = manifest_of(rows)
    chosen = augmentation(augment)
    view = PLAIN if chosen.is_none else 1 + epoch
    dataset = ImageDataset(manifest, prepare, chosen, (view,), seed)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=Shuffle(len(manifest), seed, epoch) if shuffle else None,
        num_workers=workers,
        collate_fn=_Collate(manifest, prepare.size or (0, 0), task_of(task, manifest)),
        worker_init_fn=_begin_worker,
    )


@dataclass(frozen=True)
class _Collate:
    manifest: Manifest
    size: tuple[int, int]
    task: TaskName

    def __call__(self, rows: Sequence[Sample]) -> dict[str, Any]:
        indices = [row.finding.index for row in rows if row.finding.problem is None]
        labels = [self.manifest.labels(index) for index in indices]
        pixels = [row.pixels for row in rows if row.pixels is not None]
        if len({part.shape for part in pixels}) > 1:
            raise UsageError("pictures of different sizes make no batch: put a ResizeAdapter into the preprocessing")
        return {
            "image": torch.cat(pixels) if pixels else torch.empty(0, 3, *self.size, dtype=torch.uint8),
            "label": plain_task(self.task).targets(labels, len(self.manifest.classes)),
            "key": [self.manifest.key(index) for index in indices],
            "rejected": [
                (self.manifest.key(row.finding.index), row.finding.problem)
                for row in rows
                if row.finding.problem is not None
            ],
        }


def _as_list(rows: list[Row]) -> list[Row]:
    return rows


def _begin_worker(worker: int) -> None:
    """One thread a process; signals are the main process's to handle."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def choose_workers(wanted: int, rows: int) -> int:
    """Return how many processes read pictures: `wanted`, or as many as pay where it is −1.

    Starting processes takes about as long as decoding a few hundred pictures. On one or two cores they only take the
    time of the process that computes: measured, 786 pictures took 4.7 s with two of them and 4.2 s without.
    """
    if wanted >= 0:
        return wanted
    return 0 if rows < 256 else max(min((os.cpu_count() or 1) - 2, 8), 0)
