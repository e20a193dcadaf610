"""`audit`: scan the files, compute features of every image, and collect the findings of all checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from visionadapt.auditing.duplicates import find_duplicates
from visionadapt.auditing.features import FrozenBackbone, Told, silent
from visionadapt.auditing.files import file_findings, repeated_rows, source_findings, unlisted_files
from visionadapt.auditing.findings import KINDS, AuditFinding, in_order
from visionadapt.auditing.label_errors import label_findings
from visionadapt.auditing.odd_images import quality_findings
from visionadapt.auditing.probe import ProbeRows
from visionadapt.auditing.resizing import ResizeComparison, compare_policies
from visionadapt.auditing.rows import UsableRows
from visionadapt.auditing.scan import FileFacts, scan
from visionadapt.auditing.second_source import compare
from visionadapt.auditing.settings import AuditSettings
from visionadapt.auditing.shard_scan import Scanned, read_scan, write_scan
from visionadapt.auditing.splits import AssignedSplits, assign_splits
from visionadapt.auditing.statistics import Statistics, class_findings, shape_findings
from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.core.sharding import Shard
from visionadapt.data.loading import choose_workers
from visionadapt.errors import SourceError
from visionadapt.html.notebook import table
from visionadapt.images import DecodeAdapter
from visionadapt.sources.opening import RowsLike, manifest_of
from visionadapt.system.cache_folder import default_folder


@dataclass(frozen=True, repr=False)
class Audit:
    """Result of an audit.

    Attributes:
        manifest: audited rows.
        files: what was read of each row's file.
        findings: sorted by kind, the most serious first.
        statistics: classes, sizes, modes and formats.
        resizing: comparison of the resize policies; None if no image is usable.
        split_origin: how the rows are split, as one line.
        probe_accuracy: accuracy of a linear probe on the labelled images, out of fold; None if none was trained.
        wrong_labels: number of wrong labels that confident learning estimates.
        decode: how the files were read, with the sample range that was measured.
    """

    manifest: Manifest
    files: tuple[FileFacts, ...]
    findings: tuple[AuditFinding, ...]
    statistics: Statistics
    resizing: ResizeComparison | None
    split_origin: str
    probe_accuracy: float | None
    wrong_labels: int
    decode: DecodeAdapter

    def __repr__(self) -> str:
        found = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        return f"Audit({self.usable:,} of {len(self.manifest):,} images usable; {found or 'no findings'})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how many findings there are of each kind."""
        rows = [("usable images", f"{self.usable:,} of {len(self.manifest):,}")]
        rows += [(KINDS[kind].title, f"{count:,} ({KINDS[kind].severity})") for kind, count in self.counts.items()]
        return table(f"Audit of {self.manifest.source}", rows)

    @property
    def usable(self) -> int:
        """Number of rows whose image is usable."""
        return sum(file.usable for file in self.files)

    @property
    def by_kind(self) -> Mapping[str, Sequence[AuditFinding]]:
        """Findings by kind."""
        return {kind: list(found) for kind, found in groupby(self.findings, key=attrgetter("kind"))}

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of findings by kind."""
        return {kind: len(found) for kind, found in self.by_kind.items()}

    @property
    def errors(self) -> int:
        """Number of findings with severity `error`: leaks and conflicts."""
        return sum(finding.severity == "error" for finding in self.findings)


def audit(
    source: RowsLike,
    against: RowsLike | None = None,
    *,
    settings: AuditSettings | None = None,
    scanned: str | Path | None = None,
    progress: Told = silent,
    **changes: Any,
) -> Audit:
    """Find what would spoil training on a source or inflate its metrics. Writes nothing but the feature cache.

    Args:
        source: rows to audit, in any form that `visionadapt.split` takes.
        against: second source of the same files, whose labels are compared.
        settings: backbone, split, cache and device; `changes` replaces single fields, such as `backbone="resnet18"`.
        scanned: folder in which `scan_shard` has written the scans of all parts; None scans the files here.
        progress: opens a progress display for a named step.

    Raises:
        BackboneError: the backbone is unknown, or its weights are not available.
        SourceError: the source has no rows.
        RunError: the scans in the folder are not those of all rows.
    """
    settings = replace(settings or AuditSettings(), **changes)
    manifest = manifest_of(source)
    other = manifest_of(against) if against is not None else None
    frozen = _ready(manifest, settings)
    decode, files = frozen.preparation().decode, []
    if scanned is not None:
        files = read_scan(Path(scanned), manifest, decode)
    else:
        with progress("files") as done:
            for file in scan(manifest, decode, frozen.settings.workers):
                files.append(file)
                done(len(files), len(manifest))
    splits = assign_splits(manifest, settings.val, settings.seed)
    return _examine(manifest, files, frozen, splits, other, progress)


def scan_shard(
    source: RowsLike,
    shard: str,
    folder: str | Path,
    *,
    settings: AuditSettings | None = None,
    progress: Told = silent,
    **changes: Any,
) -> Scanned:
    """Scan the files of one part of a source, such as `3/16`, into a folder for `audit`; a finished part is kept.

    Args:
        source: all rows, in any form that `visionadapt.split` takes.
        shard: which part of how many.
        folder: holds the scans of all parts.
        settings, progress, changes: as in `audit`.

    Raises:
        UsageError: `shard` is no part of a whole.
        SourceError: the source has no rows.
        RunError: the folder or a file cannot be written.
    """
    part, settings = Shard.parse(shard), replace(settings or AuditSettings(), **changes)
    manifest = manifest_of(source)
    frozen = _ready(manifest, settings)
    with progress("files") as done:
        decode = frozen.preparation().decode
        return write_scan(Path(folder), manifest, part, decode, frozen.settings.workers, done)


def _ready(manifest: Manifest, settings: AuditSettings) -> FrozenBackbone:
    """Return the backbone, which decodes files by the sample range that the rows use."""
    if not len(manifest):
        raise SourceError(f"{manifest.source} has no images")
    return _backbone(settings, choose_workers(settings.workers, len(manifest))).measured(manifest)


def _backbone(settings: AuditSettings, workers: int) -> FrozenBackbone:
    running = TrainingSettings(seed=settings.seed, device=settings.device, workers=workers)
    folder = Path(settings.cache) if settings.cache is not None else default_folder()
    frozen = FrozenBackbone.load(settings.backbone, settings.weights, settings.image_size, running, folder)
    return replace(frozen, sample_range=settings.sample_range, bands=settings.bands)


def _examine(
    manifest: Manifest,
    files: Sequence[FileFacts],
    frozen: FrozenBackbone,
    splits: AssignedSplits,
    other: Manifest | None,
    progress: Told,
) -> Audit:
    # 1) files and rows
    findings = [*file_findings(manifest, files), *repeated_rows(manifest), *unlisted_files(manifest.source, manifest)]
    findings += source_findings(manifest.source)
    findings += compare(manifest, files, other) if other is not None else ()
    # 2) statistics of what is usable
    rows = UsableRows.of(manifest, files, splits.of)
    statistics = Statistics.of(rows, manifest.classes)
    findings += [*class_findings(statistics), *shape_findings(rows, statistics, frozen.side), *quality_findings(rows)]
    # 3) duplicates
    with progress("features") as done:
        features = frozen.features(manifest, [file.finding for file in files], progress=done)
    clusters, duplicates = find_duplicates(rows, features, progress)
    findings += duplicates
    # 4) labels
    labelled = ProbeRows.of(rows, manifest.classes, clusters.of)
    accuracy, wrong = None, 0
    if labelled.can_learn:
        probabilities = labelled.probabilities(features[labelled.rows])
        accuracy = float((probabilities.argmax(axis=1) == labelled.labels).mean())
        suspected, wrong = label_findings(rows, manifest.classes, labelled, probabilities)
        findings += suspected
    # 5) resize policies
    resizing = compare_policies(rows, manifest, features, labelled, frozen, progress) if len(rows) else None
    return Audit(
        manifest=manifest,
        files=tuple(files),
        findings=in_order(findings),
        statistics=statistics,
        resizing=resizing,
        split_origin=splits.origin,
        probe_accuracy=accuracy,
        wrong_labels=wrong,
        decode=frozen.preparation().decode,
    )
