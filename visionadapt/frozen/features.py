"""Run the frozen part of a classifier once per image and view, and cache its output.

The same pass decides which rows can be used: training makes no decision before it has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visionadapt.core.records import LocalSource, Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.dataset import PLAIN, Finding, ImageDataset, Remark, Sample, remark_name
from visionadapt.data.loading import choose_workers, samples, threads_for
from visionadapt.errors import SourceError, UsageError
from visionadapt.frozen.cache.contents import Contents
from visionadapt.frozen.cache.index import KnownBefore
from visionadapt.frozen.cache.store import FeatureCache, cached_identities, space_folder
from visionadapt.frozen.pipeline import Pipeline, pad
from visionadapt.images import Augmentation, Preprocessing
from visionadapt.system import distributed
from visionadapt.system.process import start_no_threads
from visionadapt.tasks import plain_task

Progress = Callable[[int, int], None]
"""Called with the number of rows done and the total number of rows."""
_ROWS_TO_LOOK_UP = 32
_CONTENTS_AT_ONCE = 1024
Read = Callable[[Sequence[int], Sequence[int]], dict[str, Tensor]]
"""Returns the named tensors [B, …] of B usable rows, of one view each."""


@dataclass(frozen=True)
class Features:
    """The tensors at the cut for every usable row of a manifest.

    Attributes:
        pipeline: computed them, and computes the rest.
        manifest: the usable rows.
        findings: the outcome of every row, including rejected ones; `index` refers to the complete manifest.
        computed: number of forwards of the frozen part, one per image and view; the rest was already cached.
        labels: of the usable rows: class indices int64 [N]; for a multi-label model, zeros and ones float32 [N, C].
        views: number of views per row.
    """

    pipeline: Pipeline
    manifest: Manifest
    findings: tuple[Finding, ...]
    computed: int
    labels: Tensor
    views: int
    _read: Read

    def __len__(self) -> int:
        return len(self.manifest)

    def batch(self, rows: Sequence[int], views: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Return the named tensors [B, …] of some usable rows, one view each (the first by default)."""
        return self._read(list(rows), [0] * len(rows) if views is None else list(views))

    def pooled(self, rows: Sequence[int] | None = None) -> Tensor:
        """Return pooled features float32 [N, D] of some usable rows (all by default), first view, on the CPU."""
        rows = range(len(self)) if rows is None else rows
        result = torch.empty(len(rows), self.pipeline.model.backbone.num_features)
        for start, features in self._pooled(rows, lambda starts: starts):
            result[start : start + len(features)] = features
        return result

    def shared_pooled(self, view: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Yield this process's batches of all rows: the first row, and the batch's pooled features of a view."""
        return self._pooled(range(len(self)), distributed.share_of, view)

    @torch.inference_mode()
    def _pooled(
        self, rows: Sequence[int], share: Callable[[Sequence[int]], Sequence[int]], view: int = 0
    ) -> Iterator[tuple[int, Tensor]]:
        plan = self.pipeline.plan
        self.pipeline.model.eval()
        size = min(plan.batch_size, max(len(rows), plan.prefix_batch))  # pad few rows as prediction does
        for start in share(range(0, len(rows), size)):
            some = rows[start : start + size]
            yield start, self.pipeline.pooled(self.batch(some, [view] * len(some)), size)[: len(some)].float().cpu()


def _cached(used: Sequence[Finding], dataset: ImageDataset, pipeline: Pipeline, cache: FeatureCache) -> Read:
    """Read from the cache, in which all views of the usable rows are looked up once; damaged rows are recomputed."""
    found = [[cache.rows[identity] for identity in dataset.identities(finding)] for finding in used]
    places = np.array(found, dtype=np.int64).reshape(len(used), len(dataset.views))

    def read(rows: Sequence[int], views: Sequence[int]) -> dict[str, Tensor]:
        picked = places[list(rows), list(views)]
        damaged = cache.damaged(picked)
        if damaged.any():
            again = _recomputed(used, replace(dataset, known=()), pipeline)
            numbers = list({picked[number]: number for number in np.flatnonzero(damaged).tolist()}.values())
            cache.repair(picked[numbers], again([rows[n] for n in numbers], [views[n] for n in numbers]))
        return cache.read(picked)

    return read


def _recomputed(used: Sequence[Finding], dataset: ImageDataset, pipeline: Pipeline) -> Read:
    """Decode images and run the frozen part for every batch, for lack of room in the cache."""
    indices = np.array([finding.index for finding in used], np.int64)
    digests = np.array([finding.sha256 for finding in used], "S64")

    def pixels_of(row: int, view: int) -> Tensor:
        index = int(indices[row])
        sample = replace(dataset, views=(dataset.views[view],))[index]
        if sample.pixels is None or sample.finding.sha256.encode() != digests[row]:
            raise _changed(dataset.manifest, index, sample.finding.problem)
        return sample.pixels[0]

    def read(rows: Sequence[int], views: Sequence[int]) -> dict[str, Tensor]:
        with ThreadPoolExecutor(threads_for(dataset), initializer=start_no_threads) as threads:
            pixels = torch.stack(list(threads.map(pixels_of, rows, views)))
        size = pipeline.plan.prefix_batch
        batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        states = [(len(batch), pipeline.prefix(pad(batch, size), exact=True)) for batch in batches]
        return {name: torch.cat([state[name][:count] for count, state in states]).cpu() for name in states[0][1]}

    return read


def compute_features(
    pipeline: Pipeline,
    manifest: Manifest,
    settings: TrainingSettings,
    cache: Path,
    *,
    augment: Augmentation | None = None,
    findings: Sequence[Finding] | None = None,
    progress: Progress | None = None,
) -> Features:
    """Compute the tensors at the plan's cut for every usable row, or find them in the cache.

    With several processes, each reads its share of the rows and receives the findings for all rows. `augment` creates
    the plan's number of views per row; None uses the image as is. With `task="multilabel"`, a row without labels is an
    image of no class; otherwise it is rejected. The `findings` of an earlier pass are reused. Raise UsageError if the
    preprocessing does not resize or normalise, SourceError if a file has changed since the earlier pass.
    """
    plan, task = pipeline.plan, plain_task(pipeline.model.task)
    _check_complete(pipeline.prepare)
    dataset = _dataset(pipeline, manifest, settings, augment, distributed.from_first(lambda: repr(augment)))
    space = FeatureCache(cache, pipeline.description()) if plan.kept else None
    if space is not None:
        if distributed.is_first():
            space.note_data(str(manifest.source))
        known = KnownBefore(space.rows, len(space.rows))
        dataset = replace(dataset, known=known, remarks=space.remarks(), contents=space.contents)
    # 1) Read the rows that are not cached, and run the frozen part on them.
    run = _Pass(pipeline, dataset, space, choose_workers(settings.workers, len(manifest)))
    order: Sequence[int] = range(len(manifest))
    if findings is not None:
        order = distributed.from_first(lambda: _missing(findings, dataset, dataset.known)) if plan.kept else ()
    read = _merged(run.read(distributed.share_of(order), progress))
    if space is not None:
        _complete(findings or read, run, space)
    # 2) Decide which rows are used.
    if findings is not None:
        found = _unchanged(findings, read, manifest)
    else:
        found = read if settings.task == "multilabel" else _labelled(read, manifest, task.without_label)
    used = [finding for finding in found if finding.problem is None]
    rows = manifest.select(finding.index for finding in used)
    labels = task.targets([rows.labels(index) for index in range(len(rows))], len(rows.classes))
    # 3) Choose where their tensors are read from.
    reading = _recomputed(used, dataset, pipeline) if space is None else _cached(used, dataset, pipeline, space)
    computed = sum(distributed.gathered(run.computed))
    return Features(pipeline, rows, tuple(found), computed, labels, len(dataset.views), reading)


def cached_share(
    pipeline: Pipeline, manifest: Manifest, settings: TrainingSettings, cache: Path, augment: Augmentation | None = None
) -> float:
    """Estimate the share of the rows that `compute_features` will find in the cache, from a few; nothing is written.

    It is 0 for a source that is not local, which is not asked.
    """
    if not pipeline.plan.kept or not len(manifest) or not isinstance(manifest.source, LocalSource):
        return 0.0
    known = cached_identities(cache, pipeline.description())
    if not len(known):
        return 0.0
    contents = Contents(space_folder(cache, pipeline.description()))
    dataset = replace(_dataset(pipeline, manifest, settings, augment, repr(augment)), known=known, contents=contents)
    rows = range(0, len(manifest), -(-len(manifest) // _ROWS_TO_LOOK_UP))
    return sum(dataset.is_known(row) for row in rows) / len(rows)


def _dataset(
    pipeline: Pipeline, manifest: Manifest, settings: TrainingSettings, augment: Augmentation | None, name: str
) -> ImageDataset:
    views = (PLAIN,) if augment is None else tuple(range(1, pipeline.plan.views + 1))
    augment = augment or Augmentation("none")
    return ImageDataset(manifest, pipeline.prepare, augment, views, settings.seed, augment_name=name)


def _check_complete(prepare: Preprocessing) -> None:
    if prepare.size is None:
        raise UsageError("the preprocessing does not resize images: add a ResizeAdapter")
    if prepare.normalize is None:
        raise UsageError("the preprocessing does not normalise: add a NormalizeAdapter")


class _Pass:
    """Reads rows, runs the frozen part on batches of the planned size, and appends to the cache, if there is one.

    Remarks on files are stored before their features, so that a row with cached features needs no decoding.
    """

    def __init__(self, pipeline: Pipeline, dataset: ImageDataset, cache: FeatureCache | None, workers: int) -> None:
        self.pipeline, self.dataset, self.cache, self.workers = pipeline, dataset, cache, workers
        self.computed = 0
        self._identities: list[bytes] = []
        self._remarks: dict[str, Remark] = {}
        self._contents: dict[str, str] = {}
        self._pixels = torch.empty(0, dtype=torch.uint8)

    def read(self, order: Sequence[int], progress: Progress | None = None) -> list[Finding]:
        """Read some rows; return their findings."""
        progress = progress or (lambda done, rows: None)
        findings = []
        cached = len(self.dataset) - len(order)
        progress(cached, len(self.dataset))
        for done, sample in enumerate(samples(self.dataset, self.workers, order), cached + 1):
            findings.append(sample.finding)
            self._add(sample, self.dataset.identities(sample.finding))
            progress(done, len(self.dataset))
        self._flush()
        if self.cache is not None:
            self.cache.remember(self._contents)
        return findings

    def _add(self, sample: Sample, identities: Sequence[bytes]) -> None:
        """Add the uncached views of one row; `identities` are those of all of its views."""
        finding = sample.finding
        if finding.sha256 and (finding.repairs or finding.problem) and finding.lasting:
            name = remark_name(identities)
            if name not in self.dataset.remarks:
                self._remarks[name] = (finding.repairs, finding.problem)
        self._remember(finding)
        for identity, pixels in zip(sample.identities, () if sample.pixels is None else sample.pixels, strict=True):
            self._slot(pixels).copy_(pixels)
            self._identities.append(identity)
            if len(self._identities) == self.pipeline.plan.prefix_batch:
                self._flush()

    def _remember(self, finding: Finding) -> None:
        """Keep which bytes an object had, unless an extra library decodes it, whose version the bytes must tell."""
        name = self.dataset.identity_of(finding.index) if finding.sha256 and not finding.decoder else None
        if name is not None:
            self._contents[name] = finding.sha256
            if self.cache is not None and len(self._contents) == _CONTENTS_AT_ONCE:
                self.cache.remember(self._contents)
                self._contents = {}

    def _flush(self) -> None:
        """Compute the pending rows, padded to the planned size, so that a row's bits do not depend on the others."""
        if self.cache is None:
            self._identities.clear()
            return
        self.cache.remark(self._remarks)
        self._remarks = {}
        if not self._identities:
            return
        count = len(self._identities)
        self._pixels[count:] = self._pixels[count - 1]
        state = self.pipeline.prefix(self._pixels, exact=True)
        self.cache.append(self._identities, {name: tensor[:count] for name, tensor in state.items()})
        self.computed += count
        self._identities.clear()

    def _slot(self, pixels: Tensor) -> Tensor:
        """Return the next free slot of the batch that collects pixels, in pinned memory for a GPU."""
        if not len(self._pixels):
            plan = self.pipeline.plan
            shape = (plan.prefix_batch, *pixels.shape)
            self._pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=plan.device.startswith("cuda"))
        return self._pixels[len(self._identities)]


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of all processes in the order of the rows."""
    parts = distributed.gathered(findings)
    return sorted((finding for part in parts for finding in part), key=lambda finding: finding.index)


def _complete(findings: Sequence[Finding], run: _Pass, space: FeatureCache) -> None:
    """Load what other processes have cached; if machines share no cache, compute what this one lacks."""
    if distributed.world_size() == 1:
        return
    space.refresh()
    missing = _missing(findings, run.dataset, space.rows)
    distributed.wait_for_all()
    if missing:
        _unchanged(findings, run.read(distributed.share_of_machine(missing)), run.dataset.manifest)
    distributed.wait_for_all()
    space.refresh()


def _missing(findings: Sequence[Finding], dataset: ImageDataset, known: Container[bytes]) -> list[int]:
    """Return the usable rows whose tensors are not all among the identities `known`."""
    usable = (finding for finding in findings if finding.problem is None)
    return [f.index for f in usable if not all(identity in known for identity in dataset.identities(f))]


def _labelled(findings: Iterable[Finding], manifest: Manifest, problem: str) -> list[Finding]:
    """Reject the rows without a label, if the manifest has classes."""
    return [
        replace(finding, repairs=(), problem=problem)
        if manifest.classes and finding.problem is None and manifest.label(finding.index) < 0
        else finding
        for finding in findings
    ]


def _unchanged(earlier: Sequence[Finding], read: Iterable[Finding], manifest: Manifest) -> list[Finding]:
    """Return an earlier pass's findings, with the decoders of now; raise SourceError if a file has changed since."""
    before = {finding.index: finding for finding in earlier}
    for finding in read:
        if finding.sha256 != before[finding.index].sha256:
            raise _changed(manifest, finding.index, finding.problem)
        before[finding.index] = replace(before[finding.index], decoder=finding.decoder)
    return list(before.values())


def _changed(manifest: Manifest, index: int, problem: str | None) -> SourceError:
    why = f" ({problem})" if problem else ""
    return SourceError(f"{manifest.key(index)} has changed since the run began{why}; restore it, or start a new run")
