"""What an actor of a cluster does: compute the table of one shard, all of it or nothing, and alike however often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from visionadapt.core.records import Manifest
from visionadapt.core.sharding import Part
from visionadapt.errors import RunError
from visionadapt.frozen.plan import Plan
from visionadapt.prediction import bulk
from visionadapt.prediction.embedding import Precision, described, embed, model_hash, write_embedding
from visionadapt.prediction.shards import write_proof
from visionadapt.prediction.tables import writing
from visionadapt.prediction.target import Target
from visionadapt.runs import saved
from visionadapt.runs.embedder import Embedder, embedder
from visionadapt.system.cache_folder import default_folder


@dataclass(frozen=True)
class ShardWork(ABC):
    """Computes shards of one table; cheap to pickle, the model is loaded when the first shard is computed.

    A table is written beside its place and renamed, so that two processes may compute one shard at the same time, as
    happens where a machine was given up too early.

    Attributes:
        out: the table that the shards make together.
        model: hash of what computes it, as its proofs have it.
        device: where to compute.
        weights: the backbone's weights, if they are elsewhere than in training.
    """

    out: Target
    model: str
    device: str = "auto"
    weights: str | None = None
    _opened: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def compute(self, manifest: Manifest, part: Part) -> int:
        """Write the table of a shard and its proof; return how many of its rows were rejected.

        Raises:
            RunError: this machine has another model, or a file cannot be written.
        """
        if not self._opened:
            opened, model = self._open()
            if model != self.model:
                raise RunError("the machines of the cluster have different models at this path; make them alike")
            self._opened.append(opened)
        rows = manifest.select(part.places)
        with TemporaryDirectory(prefix="visionadapt-") as folder:
            target = replace(self.out, beside=Path(folder)).of(part.shard)
            rejected = self._write(self._opened[0], rows, part, target.local)
            target.publish(proof=True)
        return rejected

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": []}

    @abstractmethod
    def _open(self) -> tuple[Any, str]:
        """Load the model; return it and its hash."""

    @abstractmethod
    def _write(self, opened: Any, manifest: Manifest, part: Part, table: Path) -> int:
        """Write a table and its proof; return how many rows were rejected."""


@dataclass(frozen=True)
class PredictShards(ShardWork):
    """Classifies shards.

    Attributes:
        run: the run folder, as an absolute path.
    """

    run: Path = Path()

    def _open(self) -> tuple[Any, str]:
        predictor = saved.load(self.run, self.device, weights=self.weights)
        return predictor.in_bulk(), bulk.model_hash(self.run, predictor)

    def _write(self, opened: Any, manifest: Manifest, part: Part, table: Path) -> int:
        found = (prediction for batch in opened.batches(manifest) for prediction, _ in batch)
        with writing(table, opened.classes, opened.task) as write:
            _, rejected = bulk.write_rows(found, write, len(opened.classes))
        write_proof(table, part, self.model, rejected)
        return rejected


@dataclass(frozen=True)
class EmbedShards(ShardWork):
    """Computes the features of shards.

    Attributes:
        run, backbone: whose features; a backbone without a run computes as `plan` says.
        precision: number format of the vectors.
        cache: folder of the feature cache; None for each machine's own.
    """

    run: str | None = None
    backbone: str | None = None
    plan: Plan | None = None
    precision: Precision = "float32"
    cache: Path | None = None

    def _open(self) -> tuple[Any, str]:
        found = embedder(self.run, self.backbone, self.device, self.weights, plan=self.plan)
        return found, model_hash(described(found.pipeline, found.facts))

    def _write(self, opened: Embedder, manifest: Manifest, part: Part, table: Path) -> int:
        found, rejected = embed(
            opened.pipeline,
            manifest,
            self.cache or default_folder(),
            calibration=opened.calibration,
            facts=opened.facts,
            precision=self.precision,
            workers=0,
        )
        write_embedding(table, found)
        write_proof(table, part, self.model, len(rejected), [row.row for row in rejected])
        return len(rejected)
