"""From rows to batches: read, decode, augment, resize; what cannot be used is told, never replaced."""

from __future__ import annotations

import hashlib
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from visionadapt.core.records import Manifest, Source, manifest_of
from visionadapt.core.settings import WantedTask
from visionadapt.data.order import Shuffle
from visionadapt.data.splits import task_of
from visionadapt.errors import ImageError, UsageError
from visionadapt.images import Augmentation, Preprocessing, augmentation, seed_for
from visionadapt.system.process import start_no_threads
from visionadapt.tasks import TaskName, plain_task

PLAIN = 0
"""The view without augmentation; views 1, 2, … are augmented ones."""

Row = TypeVar("Row")


Remark = tuple[Sequence[str], str | None]
"""The repairs and the problem of a file: what its finding says beside its place."""


@dataclass(frozen=True)
class Finding:
    """What came of one row.

    Attributes:
        index: its place in the manifest.
        sha256: hex digest of the file's bytes; empty where they could not be read.
        repairs: what a naive reader would have got wrong, and what was done about it.
        problem: why the row is rejected; None for all others.
        lasting: whether that is the file's own fault, so that it need not be tried again.
    """

    index: int
    sha256: str = ""
    repairs: tuple[str, ...] = ()
    problem: str | None = None
    lasting: bool = True


@dataclass(frozen=True)
class Sample:
    """One row, ready for a batch: uint8 [V, 3, S, S], the views asked for, and the content identity of each.

    `pixels` is None where no view is wanted or the row is rejected. It is one tensor, since each costs a file handle
    on its way from a worker.
    """

    finding: Finding
    views: tuple[int, ...] = ()
    identities: tuple[bytes, ...] = ()
    pixels: Tensor | None = None


class Rows(Dataset[Row], ABC):
    """Rows whose files are opened one after another, and decoded in several threads where the decoding allows it."""

    @property
    def one_by_one(self) -> bool:
        """Whether only one may be decoded at a time."""
        return False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def opened(self, index: int) -> Callable[[], Row]:
        """Read a row's file; what is left to do with it is done by the result, in any thread."""

    def __getitem__(self, index: int) -> Row:
        return self.opened(index)()


@dataclass(frozen=True)
class PictureDataset(Rows[Sample]):
    """Reads rows of a manifest; every view of a row comes from one decoding.

    Attributes:
        manifest: the rows.
        prepare: decoding and resizing.
        augment: what the views other than `PLAIN` go through, between the two.
        views: which views are wanted of every row.
        seed: with view and key it settles every random draw.
        known: identities of pixels that are not wanted, since what follows from them is kept already.
        remarks: what decoding found out before about rows that are not simply right, by `remark_name`.
        augment_name: stands for the augmentation in identities; empty for its `repr`, which another process may read
            otherwise where the pipeline is one of the user's own.
    """

    manifest: Manifest
    prepare: Preprocessing
    augment: Augmentation
    views: tuple[int, ...] = (PLAIN,)
    seed: int = 0
    known: Container[bytes] = ()
    remarks: Mapping[str, Remark] = field(default_factory=dict)
    augment_name: str = ""

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def one_by_one(self) -> bool:
        """Whether the pipeline is one of the user's own: what it draws comes from random states that threads share."""
        return self.augment.is_own

    def opened(self, index: int) -> Callable[[], Sample]:
        """Read a row's file; the result decodes it, unless what follows is kept already."""
        record = self.manifest[index]
        if record.problem is not None:
            return partial(Sample, Finding(index, problem=record.problem))
        try:
            data = self.manifest.source.read(record)
        except ImageError as error:
            return partial(Sample, Finding(index, problem=error.reason, lasting=error.lasting))
        return partial(self._sample, index, record.key, data)

    def _sample(self, index: int, key: str, data: bytes) -> Sample:
        digest = hashlib.sha256(data).hexdigest()
        try:
            kept = self._kept(index, key, digest)
            return Sample(kept) if kept is not None else self._decoded(index, key, digest, data)
        except ImageError as error:
            return Sample(Finding(index, digest, problem=error.reason, lasting=error.lasting))

    def _kept(self, index: int, key: str, digest: str) -> Finding | None:
        """What is known of a file without decoding it; None where it must be decoded."""
        names = self._identities(digest, key)
        repairs, problem = self.remarks.get(remark_name(names), ((), None))
        if problem is None and not all(name in self.known for name in names):
            return None
        return Finding(index, digest, tuple(repairs), problem)

    def _decoded(self, index: int, key: str, digest: str, data: bytes) -> Sample:
        decoded = self.prepare.decoded(data, key)
        names = zip(self.views, self._identities(digest, key), strict=True)
        wanted = {view: name for view, name in names if name not in self.known}
        pixels = [self._pixels(decoded.pixels, key, view) for view in wanted]
        finding = Finding(index, digest, decoded.repairs)
        return Sample(finding, tuple(wanted), tuple(wanted.values()), torch.stack(pixels) if pixels else None)

    def identities(self, finding: Finding) -> tuple[bytes, ...]:
        """The content identity of each view of a row that has been read."""
        return self._identities(finding.sha256, self.manifest.key(finding.index))

    def _identities(self, digest: str, key: str) -> tuple[bytes, ...]:
        return tuple(self._identity(digest, key, view) for view in self.views)

    def _identity(self, digest: str, key: str, view: int) -> bytes:
        """32 bytes that stand for the file's bytes and, of an augmented view, for everything that is random in it."""
        name = self.augment_name or repr(self.augment)
        drawn = "" if view == PLAIN else f"{name}\x1f{self.seed}\x1f{view}\x1f{key}"
        return hashlib.blake2b(f"{digest}\x1f{drawn}".encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def _pixels(self, picture: Tensor, key: str, view: int) -> Tensor:
        if view != PLAIN:
            picture = self.augment(picture, seed_for(self.seed, view, key))
        return self.prepare.after_decode(picture)


def remark_name(identities: Sequence[bytes]) -> str:
    """What a remark on a file is kept under: it stands for the bytes, and for what is random in the views."""
    return hashlib.blake2b(b"".join(identities), digest_size=16).hexdigest()


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
    dataset = PictureDataset(manifest, prepare, chosen, (view,), seed)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=epoch_order(len(manifest), seed, epoch) if shuffle else None,
        num_workers=workers,
        collate_fn=_Collate(manifest, prepare.size or (0, 0), task_of(task, manifest)),
        worker_init_fn=_begin_worker,
    )


def epoch_order(rows: int, seed: int, epoch: int) -> Sequence[int]:
    """The one global order of an epoch: a permutation of range(rows) that depends on (seed, epoch) alone."""
    return Shuffle(rows, seed, epoch)


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
