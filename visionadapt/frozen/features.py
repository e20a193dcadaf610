"""Run the frozen part of a classifier once a picture and view, and keep what comes out.

The same pass settles which rows can be used: nothing of a training run is decided before it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import PLAIN, Finding, ImageDataset, Remark, Sample, remark_name
from visionadapt.data.loading import samples, threads_for
from visionadapt.errors import SourceError, UsageError
from visionadapt.frozen.cache.index import KnownBefore
from visionadapt.frozen.cache.store import FeatureCache
from visionadapt.frozen.engines import engine, engine_versions, frozen_hash
from visionadapt.frozen.plan import Plan, enough_memory
from visionadapt.images import Augmentation, Preprocessing
from visionadapt.model.classifier import Classifier
from visionadapt.system import distributed
from visionadapt.system.process import start_no_threads
from visionadapt.tasks import TaskName, plain_task
from visionadapt.version import __version__

Progress = Callable[[int, int], None]
"""Is told how many of how many rows are done."""


@dataclass(frozen=True)
class Features:
    """What crosses the cut, for every usable row of a manifest.

    Attributes:
        manifest: the usable rows.
        findings: what came of every row, the rejected ones too; their `index` is that of the whole manifest.
        computed: how many forwards of the frozen part it took, one a picture and view; the others were kept already.
        labels: of the usable rows: class indices int64 [N]; of a multi-label model, zeros and ones float32 [N, C].
        views: how many views of each row there are.
    """

    manifest: Manifest
    findings: tuple[Finding, ...]
    computed: int
    labels: Tensor
    views: int
    _read: Callable[[Sequence[int], Sequence[int]], dict[str, Tensor]]

    def __len__(self) -> int:
        return len(self.manifest)

    def batch(self, rows: Sequence[int], views: Sequence[int] | None = None) -> dict[str, Tensor]:
        """The named tensors [B, …] of some usable rows, each in its view (the first one by default)."""
        return self._read(list(rows), [0] * len(rows) if views is None else list(views))


@dataclass(frozen=True)
class _Kept:
    """Reads from the cache; `places` int64 [N, V] says where each row's views lie."""

    cache: FeatureCache
    places: NDArray[np.int64]

    @classmethod
    def of(cls, used: Sequence[Finding], dataset: ImageDataset, cache: FeatureCache) -> _Kept:
        """Of the usable rows, all of whose views the cache holds."""
        places = [[cache.rows[identity] for identity in dataset.identities(finding)] for finding in used]
        return cls(cache, np.array(places, dtype=np.int64).reshape(len(used), len(dataset.views)))

    def __call__(self, rows: Sequence[int], views: Sequence[int]) -> dict[str, Tensor]:
        return self.cache.read(self.places[list(rows), list(views)])


@dataclass(frozen=True)
class _Anew:
    """Decodes and runs the frozen part for every batch, where there is no room to keep what comes out."""

    dataset: ImageDataset
    rows: NDArray[np.int64]
    digests: NDArray[np.bytes_]
    run: Callable[[Tensor], dict[str, Tensor]]
    batch: int

    @classmethod
    def of(cls, used: Sequence[Finding], dataset: ImageDataset, prefix: _Prefix) -> _Anew:
        """Of the usable rows."""
        run = partial(run_prefix, prefix.model, prefix.prepare, prefix.plan, exact=True)
        rows = np.array([finding.index for finding in used], np.int64)
        digests = np.array([finding.sha256 for finding in used], "S64")
        return cls(dataset, rows, digests, run, prefix.plan.prefix_batch)

    def __call__(self, rows: Sequence[int], views: Sequence[int]) -> dict[str, Tensor]:
        with ThreadPoolExecutor(threads_for(self.dataset), initializer=start_no_threads) as threads:
            pixels = torch.stack(list(threads.map(self._pixels, rows, views)))
        parts = [pixels[start : start + self.batch] for start in range(0, len(pixels), self.batch)]
        states = [(len(part), self.run(pad(part, self.batch))) for part in parts]
        return {name: torch.cat([state[name][:count] for count, state in states]).cpu() for name in states[0][1]}

    def _pixels(self, row: int, view: int) -> Tensor:
        index = int(self.rows[row])
        sample = replace(self.dataset, views=(self.dataset.views[view],))[index]
        if sample.pixels is None or sample.finding.sha256.encode() != self.digests[row]:
            raise _changed(self.dataset.manifest, index, sample.finding.problem)
        return sample.pixels[0]


def compute_features(
    model: Classifier,
    manifest: Manifest,
    prepare: Preprocessing,
    plan: Plan,
    cache: Path,
    *,
    augment: Augmentation | None = None,
    seed: int = 0,
    workers: int = 0,
    settled: Sequence[Finding] | None = None,
    unlabelled: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Compute what lies before the plan's cut for every row that can be used, or find it in the cache.

    Of several processes each reads its share of the rows, and all know what all have found.

    Args:
        model: its frozen part is run.
        manifest: the rows.
        prepare: decoding, resizing and normalisation.
        plan: cut, precision and batch size.
        cache: folder of the cache.
        augment: makes `plan.views` views of each row; None takes the picture as it is.
        seed: settles the augmentation.
        workers: processes that read pictures.
        settled: what an earlier pass found out about every row; it is not decided anew.
        unlabelled: whether a row without labels is a picture of none of the classes; it is rejected otherwise.
        progress: is told of every row.

    Raises:
        UsageError: the preprocessing does not resize or normalise.
        SourceError: a file has changed since `settled`.
    """
    _check_whole(prepare)
    views = (PLAIN,) if augment is None else tuple(range(1, plan.views + 1))
    name = distributed.from_first(lambda: repr(augment))
    dataset = ImageDataset(manifest, prepare, augment or Augmentation("none"), views, seed, augment_name=name)
    space = FeatureCache(cache, describe(model, plan, prepare)) if plan.kept else None
    if space is not None:
        dataset = replace(dataset, known=KnownBefore(space.rows, len(space.rows)), remarks=space.remarks())
    prefix = _Prefix(model, prepare, plan, space, dataset.remarks)
    order: Sequence[int] = range(len(manifest))
    if settled is not None:
        order = distributed.from_first(lambda: _missing(settled, dataset, dataset.known)) if plan.kept else ()
    read = _merged(_read(dataset, distributed.share_of(order), workers, prefix, progress))
    if space is not None:
        _complete(settled or read, dataset, space, workers, prefix)
    findings = _settle(settled, read, manifest) if settled is not None else read
    if settled is None and not unlabelled:
        findings = _labelled(read, manifest, model.task)
    used = [finding for finding in findings if finding.problem is None]
    rows = manifest.select(finding.index for finding in used)
    labels = plain_task(model.task).targets([rows.labels(index) for index in range(len(rows))], len(rows.classes))
    reading: _Kept | _Anew = _Anew.of(used, dataset, prefix) if space is None else _Kept.of(used, dataset, space)
    computed = sum(distributed.gathered(prefix.computed))
    return Features(rows, tuple(findings), computed, labels, len(views), reading)


def _check_whole(prepare: Preprocessing) -> None:
    if prepare.size is None:
        raise UsageError("the preprocessing leaves pictures at their own sizes: put a ResizeAdapter into it")
    if prepare.normalize is None:
        raise UsageError("the preprocessing makes no floats: put a NormalizeAdapter into it")


def describe(model: Classifier, plan: Plan, prepare: Preprocessing) -> dict[str, object]:
    """Everything that the kept tensors depend on beside the picture and its augmentation."""
    return {
        "backbone": plan.backbone,
        "weights": frozen_hash(model, plan.cut),
        "image_size": plan.image_size,
        "cut": plan.cut,
        "engine": plan.engine,
        "precision": plan.prefix_precision,
        "device": torch.device(plan.device).type,
        "threads": plan.threads,
        "batch": plan.prefix_batch,
        "versions": {**plan.versions, **_reader_versions(), **engine_versions(plan.engine), "visionadapt": __version__},
        "preprocessing": prepare.to_json(),
    }


def _reader_versions() -> dict[str, str]:
    """Of what reads HEIC pictures, where it is installed."""
    return {"pillow-heif": version("pillow-heif")} if find_spec("pillow_heif") is not None else {}


class _Prefix:
    """Collects pixels into batches of the planned size, runs the frozen part and appends to the cache, if there is one.

    What decoding found out is kept before the features, so that a row whose features are there needs no decoding.
    """

    def __init__(
        self,
        model: Classifier,
        prepare: Preprocessing,
        plan: Plan,
        cache: FeatureCache | None,
        remarked: Mapping[str, Remark],
    ) -> None:
        self.model, self.prepare, self.plan, self.cache, self.remarked = model, prepare, plan, cache, remarked
        self.computed = 0
        self._identities: list[bytes] = []
        self._remarks: dict[str, Remark] = {}
        self._pixels = torch.empty(0, dtype=torch.uint8)

    def add(self, sample: Sample, identities: Sequence[bytes]) -> None:
        """Take in the views of one row; `identities` are those of all of its views."""
        finding = sample.finding
        if finding.sha256 and (finding.repairs or finding.problem) and finding.lasting:
            name = remark_name(identities)
            if name not in self.remarked:
                self._remarks[name] = (finding.repairs, finding.problem)
        for identity, pixels in zip(sample.identities, () if sample.pixels is None else sample.pixels, strict=True):
            self._slot(pixels).copy_(pixels)
            self._identities.append(identity)
            if len(self._identities) == self.plan.prefix_batch:
                self.flush()

    def flush(self) -> None:
        """Compute what is waiting, padded to the planned size, so that a row's bits do not depend on its company."""
        if self.cache is None:
            self._identities.clear()
            return
        self.cache.remark(self._remarks)
        self._remarks = {}
        if not self._identities:
            return
        count = len(self._identities)
        self._pixels[count:] = self._pixels[count - 1]
        state = run_prefix(self.model, self.prepare, self.plan, self._pixels, exact=True)
        self.cache.append(self._identities, {name: tensor[:count] for name, tensor in state.items()})
        self.computed += count
        self._identities.clear()

    def _slot(self, pixels: Tensor) -> Tensor:
        """The next free place of the one batch that pixels are gathered in: pinned where a GPU takes it."""
        if not len(self._pixels):
            shape = (self.plan.prefix_batch, *pixels.shape)
            self._pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.plan.device.startswith("cuda"))
        return self._pixels[len(self._identities)]


@torch.inference_mode()
def run_prefix(
    model: Classifier, prepare: Preprocessing, plan: Plan, pixels: Tensor, *, exact: bool = False
) -> dict[str, Tensor]:
    """uint8 [B, 3, S, S], B the planned size → the named tensors at the plan's cut, by the planned engine.

    Where that one cannot be built here, the backbone runs as it is; or, where it must be `exact`, RunError is raised.
    """
    if plan.cut == 0:
        return {"x": pixels}
    with enough_memory(plan.device, "give a smaller --image-size or --backbone, or --device cpu"):
        moved = pixels.to(plan.device, non_blocking=True)
        normalised = prepare.device(moved).contiguous(memory_format=torch.channels_last)
        return engine(plan.engine, model, plan.prefix, exact=exact)(normalised)


def run_suffix(model: Classifier, prepare: Preprocessing, plan: Plan, state: dict[str, Tensor]) -> Tensor:
    """The named tensors at the plan's cut → pooled features [B, D].

    What is frozen behind the cut computes in the frozen part's number format, the rest in its own.
    """
    state = {name: _channels_last(tensor.to(plan.device)) for name, tensor in state.items()}
    if plan.cut == 0:
        state["x"] = _channels_last(prepare.device(state["x"]))
    if plan.cut < plan.trained:
        with plan.prefix.computing():
            state = model.backbone.run(state, plan.cut, plan.trained)
    if plan.trained < plan.segments:
        state = {name: _in(plan.precision, tensor) for name, tensor in state.items()}
    with plan.computing(twice=model.backbone.checkpointing):
        return model.features(state, plan.trained)


def _in(precision: str, tensor: Tensor) -> Tensor:
    return tensor.to(getattr(torch, precision)) if tensor.is_floating_point() else tensor


def pad(tensor: Tensor, size: int) -> Tensor:
    """Repeat the last row until there are `size` rows: [B, …] → [size, …]."""
    missing = size - len(tensor)
    return tensor if missing <= 0 else torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _read(
    dataset: ImageDataset, order: Sequence[int], workers: int, prefix: _Prefix, progress: Progress | None
) -> list[Finding]:
    findings = []
    kept = len(dataset) - len(order)
    if progress is not None:
        progress(kept, len(dataset))
    for done, sample in enumerate(samples(dataset, workers, order), kept + 1):
        findings.append(sample.finding)
        prefix.add(sample, dataset.identities(sample.finding))
        if progress is not None:
            progress(done, len(dataset))
    prefix.flush()
    return findings


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """What all processes have found out, in the order of the rows."""
    parts = distributed.gathered(findings)
    return sorted((finding for part in parts for finding in part), key=lambda finding: finding.index)


def _complete(
    findings: Sequence[Finding], dataset: ImageDataset, space: FeatureCache, workers: int, prefix: _Prefix
) -> None:
    """Take in what other processes have kept; where machines share no cache, compute what is missing on this one."""
    if distributed.world_size() == 1:
        return
    space.refresh()
    missing = _missing(findings, dataset, space.rows)
    distributed.wait_for_all()
    if missing:
        read = _read(dataset, distributed.share_of_machine(missing), workers, prefix, None)
        _settle(findings, read, dataset.manifest)
    distributed.wait_for_all()
    space.refresh()


def _missing(settled: Sequence[Finding], dataset: ImageDataset, known: Container[bytes]) -> list[int]:
    """The rows that were found usable before and whose tensors are not among those `known`."""
    usable = (finding for finding in settled if finding.problem is None)
    return [f.index for f in usable if not all(identity in known for identity in dataset.identities(f))]


def _labelled(findings: Iterable[Finding], manifest: Manifest, task: TaskName) -> list[Finding]:
    """Reject the rows that have no label, where the manifest has classes."""
    problem = plain_task(task).without_label
    return [
        Finding(finding.index, finding.sha256, problem=problem)
        if manifest.classes and finding.problem is None and manifest.label(finding.index) < 0
        else finding
        for finding in findings
    ]


def _settle(settled: Sequence[Finding], read: Iterable[Finding], manifest: Manifest) -> list[Finding]:
    """Keep to what an earlier pass settled; raise SourceError where a file is not what it was then."""
    before = {finding.index: finding for finding in settled}
    for finding in read:
        if finding.sha256 != before[finding.index].sha256:
            raise _changed(manifest, finding.index, finding.problem)
    return list(settled)


def _changed(manifest: Manifest, index: int, problem: str | None) -> SourceError:
    why = f" ({problem})" if problem else ""
    return SourceError(f"{manifest.key(index)} has changed since the run began{why}; restore it, or start a new run")
