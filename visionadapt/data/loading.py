"""Load rows in threads or worker processes, and make batches of them."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from visionadapt.core.records import Manifest
from visionadapt.data.ahead import opened
from visionadapt.data.dataset import PLAIN, ImageDataset, Rows, Sample, reads_ahead
from visionadapt.data.order import EpochSampler
from visionadapt.data.processes import WorkersLostError, begin_worker, in_processes
from visionadapt.errors import UsageError
from visionadapt.images import Preprocessing, augmentation
from visionadapt.sources.opening import RowsLike, manifest_of
from visionadapt.system.process import check_not_starting, start_no_threads
from visionadapt.tasks import plain_task

Row = TypeVar("Row")

_log = logging.getLogger("visionadapt")

ROWS_PER_THREAD = 16
"""Files read ahead for each thread: more of them balance the work better, and take more memory."""


def samples(rows: Rows[Row], workers: int = 0, order: Sequence[int] | None = None) -> Iterator[Row]:
    """Yield the rows one by one, in manifest order or in `order`; the number of `workers` does not change the result.

    Without worker processes, files are opened here and decoded in threads, which pause while the caller computes. Where
    worker processes cannot be started or are ended by the system, threads take over, and a line is logged. An error in
    a worker is raised here.
    """
    places = range(len(rows)) if order is None else order
    if not workers:
        yield from _in_threads(rows, places)
        return
    check_not_starting()
    done = 0
    try:
        for row in in_processes(rows, places, workers):
            done += 1
            yield row
    except WorkersLostError as error:
        _log.warning("processes that read images %s: threads read the rest, as with --workers 0", error)
        yield from _in_threads(rows, places[done:])


def _in_threads(rows: Rows[Row], order: Sequence[int]) -> Iterator[Row]:
    """Yield the rows, some per thread at a time; no thread works while the caller does."""
    threads = threads_for(rows)
    ahead = opened(rows, order)
    if threads == 1:
        yield from (decode() for decode in ahead)
        return
    with ThreadPoolExecutor(threads, initializer=start_no_threads) as pool:
        while waiting := [pool.submit(decode) for decode in islice(ahead, ROWS_PER_THREAD * threads)]:
            wait(waiting)
            for result in waiting:
                yield result.result()


def threads_for(rows: Rows[Any]) -> int:
    """Return how many threads may decode at once."""
    return 1 if rows.one_by_one else max(torch.get_num_threads(), 1)


def loader(
    rows: RowsLike,
    prepare: Preprocessing,
    batch_size: int = 32,
    *,
    augment: Any = "none",
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    normalize: bool = True,
) -> DataLoader[Any]:
    """Return a DataLoader for a custom training loop. A batch is a dict, the same for every source:

    - `image`: float32 [B, 3, S, S], normalised as the backbone expects; uint8 without `normalize`;
    - `label`: int64 [B], −1 for an unlabelled row; float32 [B, C] of zeros and ones where any row of the source,
      selected or not, has several labels;
    - `key`: list of B keys;
    - `rejected`: list of (key, reason) of the rows that cannot be used; they are in no other entry.

    Every pass over the loader is another epoch, with another order where `shuffle` is set, and another view of each
    image where there is an augmentation. Order and views depend only on seed, epoch and key. The first pass is epoch
    0; `loader.sampler.set_epoch(3)` lets the next one be epoch 3, as with torch's `DistributedSampler`.

    Args:
        rows: a split, or other rows in any form that `split` takes.
        prepare: decodes, resizes and normalises.
        batch_size: rows per batch; the last batch may be smaller.
        augment: a preset's name, an `Augmentation`, or a custom pipeline.
        shuffle: whether the rows come in another order in every epoch, instead of their own.
        seed: determines order and views.
        workers: processes that load images; 0 loads in this process.
        normalize: False yields uint8 images, a quarter of the bytes to move to a GPU;
            `prepare.device(batch["image"])` normalises them there.

    Raises:
        UsageError: `prepare` has no `NormalizeAdapter`, and `normalize` is set; or, while iterating, images of a
            batch differ in size for lack of a `ResizeAdapter`.
    """
    if normalize and prepare.normalize is None:
        raise UsageError("prepare has no NormalizeAdapter: add one to images.compose(…), or pass normalize=False")
    manifest, chosen = manifest_of(rows), augmentation(augment)
    return DataLoader(
        _Views(ImageDataset(manifest, prepare, chosen, seed=seed), augmented=not chosen.is_none),
        batch_size=batch_size,
        sampler=EpochSampler(len(manifest), seed, shuffle),
        num_workers=workers,
        collate_fn=_Collate(manifest, prepare, normalize, manifest.has_several_labels),
        worker_init_fn=begin_worker,
        multiprocessing_context="spawn" if workers and reads_ahead(manifest) else None,
    )


@dataclass(frozen=True)
class _Views(Dataset[Sample]):
    """One view of each row: the plain one, or the augmented one of the epoch."""

    dataset: ImageDataset
    augmented: bool

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        epoch, index = place
        return dataclasses.replace(self.dataset, views=(1 + epoch if self.augmented else PLAIN,))[index]


@dataclass(frozen=True)
class _Collate:
    manifest: Manifest
    prepare: Preprocessing
    normalize: bool
    multilabel: bool

    def __call__(self, rows: Sequence[Sample]) -> dict[str, Any]:
        manifest = self.manifest
        findings = [row.finding for row in rows]
        used = [finding.index for finding in findings if finding.problem is None]
        task = plain_task("multilabel" if self.multilabel else "single")
        return {
            "image": self._images([row.pixels for row in rows if row.pixels is not None]),
            "label": task.targets([manifest.labels(index) for index in used], len(manifest.classes)),
            "key": [manifest.key(index) for index in used],
            "rejected": [(manifest.key(found.index), found.problem) for found in findings if found.problem is not None],
        }

    def _images(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        if len({part.shape for part in pixels}) > 1:
            raise UsageError("images of different sizes make no batch: add a ResizeAdapter to the preprocessing")
        size = self.prepare.size or (0, 0)
        batch = (
            torch.cat(list(pixels))
            if pixels
            else torch.empty(0, self.prepare.decode.channels, *size, dtype=torch.uint8)
        )
        return self.prepare.device(batch) if self.normalize else batch


def choose_workers(requested: int, rows: int) -> int:
    """Return how many processes load images: `requested`, or for −1 as many as save time.

    Starting processes takes about as long as decoding a few hundred images. On one or two cores they compete with the
    process that computes: measured, 786 images took 4.7 s with two of them and 4.2 s without.

    Raises:
        UsageError: `requested` is below −1.
    """
    if requested < -1:
        raise UsageError(f"--workers {requested}: give a number of processes, or -1 to choose it by the machine")
    if requested >= 0:
        return requested
    return 0 if rows < 256 else max(min((os.cpu_count() or 1) - 2, 8), 0)
