"""The audit itself: one look at every file, features of every picture, and all that follows from the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionadapt.auditing.duplicates import Clusters, NearCopies, Rows, equal_findings, equal_rows
from visionadapt.auditing.features import FrozenBackbone, Told, silent
from visionadapt.auditing.files import file_findings, repeated_rows, unlisted_files
from visionadapt.auditing.findings import GRAVE, AuditFinding, in_order
from visionadapt.auditing.label_errors import Pupil, compare_policies, label_findings
from visionadapt.auditing.near_duplicates import Pairs, near_pairs
from visionadapt.auditing.resizing import Policies
from visionadapt.auditing.scan import Facts, hashes, lumas, scan
from visionadapt.auditing.second_source import compare
from visionadapt.auditing.splits import Division, divide
from visionadapt.auditing.statistics import Makeup, class_findings, makeup, shape_findings
from visionadapt.backbones import default_name
from visionadapt.core.records import Manifest, Source, manifest_of
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import SourceError
from visionadapt.frozen.cache.store import default_folder

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Audit:
    """What an audit has found.

    Attributes:
        manifest: the audited rows.
        facts: what is to be seen of each row.
        findings: by kind, the gravest first.
        makeup: classes, sizes, modes.
        policies: what each resize policy does; None where no picture can be used.
        division: how the rows are divided into parts, as one line.
        probed: share of the labelled pictures that a linear probe gets right out of fold; None where there was none.
        wrong_labels: how many wrong labels confident learning estimates.
    """

    manifest: Manifest
    facts: tuple[Facts, ...]
    findings: tuple[AuditFinding, ...]
    makeup: Makeup
    policies: Policies | None
    division: str
    probed: float | None
    wrong_labels: int

    @property
    def usable(self) -> int:
        """How many rows have a picture that can be used."""
        return sum(fact.usable for fact in self.facts)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings there are of each kind."""
        return Counter(finding.kind for finding in self.findings)

    @property
    def grave(self) -> int:
        """How many leaks and conflicts there are."""
        return sum(self.counts.get(kind, 0) for kind in GRAVE)


def audit(
    source: Source | Manifest,
    against: Source | None = None,
    *,
    backbone: str = default_name,
    weights: str = "pretrained",
    image_size: int | None = None,
    val: float = 0.2,
    seed: int = 0,
    cache: str | Path | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: Told = silent,
) -> Audit:
    """Look for everything in a source that would spoil training or flatter its figures. Writes nothing but its cache.

    Args:
        source: the rows.
        against: a second source of the same files, whose labels are compared.
        backbone: a timm model, whose features tell near copies and improbable labels.
        weights: `pretrained`, `none` for random ones, or a file.
        image_size: side of the backbone's input in pixels, where it is not the pretrained one.
        val, seed: how training would divide the rows, where they do not say so themselves.
        cache: folder of the feature cache; the user's by default.
        device: where the backbone computes.
        workers: processes that read pictures.
        progress: shows what goes on.

    Raises:
        UsageError: the backbone or its weights are not at hand; no row is there.
    """
    manifest = manifest_of(source)
    if not len(manifest):
        raise SourceError(f"{manifest.source} holds no pictures")
    settings = TrainingSettings(seed=seed, device=device, workers=workers)
    folder = Path(cache) if cache is not None else default_folder()
    frozen = FrozenBackbone.load(backbone, weights, image_size, settings, folder)
    with progress("files") as told:
        facts = []
        for fact in scan(manifest, frozen.preparation().decode, workers):
            facts.append(fact)
            told(len(facts), len(manifest))
    return _examine(manifest, facts, frozen, divide(manifest, val, seed), against, progress)


def _examine(
    manifest: Manifest,
    facts: Sequence[Facts],
    frozen: FrozenBackbone,
    division: Division,
    against: Source | None,
    progress: Told,
) -> Audit:
    rows = _usable(manifest, facts, division)
    made = makeup(rows, manifest.classes)
    findings = [*file_findings(manifest, facts), *repeated_rows(manifest), *unlisted_files(manifest.source, manifest)]
    findings += [*class_findings(made), *shape_findings(rows, made, frozen.side)]
    findings += compare(manifest, facts, against) if against is not None else ()
    with progress("features") as told:
        features = frozen.features(manifest, [fact.finding for fact in facts], progress=told)
    clusters = Clusters(len(rows))
    findings += _copies(rows, features, clusters, progress)
    pupil = Pupil.of(rows, manifest.classes, clusters)
    probed, wrong = None, 0
    if pupil.able:
        probabilities = pupil.probabilities(features[pupil.rows])
        probed = float((probabilities.argmax(axis=1) == pupil.labels).mean())
        suspected, wrong = label_findings(rows, manifest.classes, pupil, probabilities)
        findings += suspected
    policies = compare_policies(rows, manifest, features, pupil, frozen, progress) if len(rows) else None
    return Audit(manifest, tuple(facts), in_order(findings), made, policies, division.told, probed, wrong)


def _usable(manifest: Manifest, facts: Sequence[Facts], division: Division) -> Rows:
    seen = [fact for fact in facts if fact.usable]
    places = [fact.finding.index for fact in seen]
    return Rows(
        keys=[manifest.key(place) for place in places],
        facts=seen,
        labels=[manifest[place].labels for place in places],
        parts=[division.parts[place] for place in places],
        groups=[manifest.group(place) for place in places],
    )


def _copies(rows: Rows, features: Floats, clusters: Clusters, progress: Told) -> Iterator[AuditFinding]:
    """Findings about equal and nearly equal pictures, whose rows are joined in `clusters`."""
    together = equal_rows(rows)
    for members in together:
        for row in members[1:]:
            clusters.join(members[0], row)
    yield from equal_findings(rows, together)
    near = NearCopies(rows, clusters)
    varied = np.array([row for row, fact in enumerate(rows.facts) if not fact.blank], np.int64)
    facts = [rows.facts[row] for row in varied]
    features = features if len(varied) == len(rows) else features[varied]
    with progress("pairs") as told:
        for pairs in near_pairs(hashes(facts), lumas(facts), features, progress=told):
            near.add(Pairs(varied[pairs.first], varied[pairs.second], pairs.score))
    yield from near.findings()
