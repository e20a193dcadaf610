"""Compute a table on a cluster: its missing shards, and then the table from all of them."""

from __future__ import annotations

from visionadapt.clusters.ray_data import compute_shards
from visionadapt.clusters.shard_work import ShardWork
from visionadapt.core.records import Manifest
from visionadapt.core.sharding import all_parts
from visionadapt.errors import RunError
from visionadapt.frozen.features import Progress
from visionadapt.prediction.bulk import Outcome
from visionadapt.runs.options import ClusterOptions


def compute_table(
    work: ShardWork,
    manifest: Manifest,
    options: ClusterOptions,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Compute all shards that are not there yet, and put them together; return how many rows are used and rejected.

    Args:
        work: computes a shard.
        manifest: all rows.
        options: how many shards and models, and whether the shards stay and are not put together.
        overwrite: whether shards that are there are computed again.
        progress: called with the number of rows done and the total.

    Raises:
        UsageError, RunError: as `compute_shards` and `merge`; shards that are done are kept.
    """
    parts = all_parts(manifest, options.count(len(manifest)))
    missing = [part for part in parts if overwrite or work.out.of(part.shard).written(part, work.model) is None]
    if missing:
        compute_shards(work, manifest, missing, actors=options.actors, progress=progress)
    proofs = [work.out.of(part.shard).written(part, work.model) for part in parts]
    unseen = [part for part, proof in zip(parts, proofs, strict=True) if proof is None]
    if unseen:
        table = work.out.of(unseen[0].shard)
        raise RunError(f"{table} was computed on another machine, not here: name a folder that all share")
    work.out.tidy()
    rejected = sum(proof.rejected for proof in proofs if proof is not None)
    resumed = sum(len(part.places) for part in parts) - sum(len(part.places) for part in missing)
    if not options.keep_shards:
        work.out.merge()
        for part in parts:
            work.out.of(part.shard).remove()
    return Outcome(len(manifest) - rejected, rejected, resumed)
