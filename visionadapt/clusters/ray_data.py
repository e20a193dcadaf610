"""Compute the shards of a table with Ray Data: actors with one model each, which Ray starts, feeds and replaces."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from visionadapt.clusters.shard_work import ShardWork
from visionadapt.core.records import LocalSource, Manifest
from visionadapt.core.sharding import Part
from visionadapt.errors import RunError, UsageError, VisionAdaptError
from visionadapt.frozen.features import Progress
from visionadapt.sources.arguments import needing
from visionadapt.system.process import ONE_ARENA

_MOST_IDLE = 3
_WAIT = 5.0
"""Seconds for the cluster to find out which of its machines are gone."""


def compute_shards(
    work: ShardWork,
    manifest: Manifest,
    parts: Sequence[Part],
    *,
    actors: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the tables of shards, and their proofs, on the Ray cluster that RAY_ADDRESS names, or on this machine.

    A shard whose machine is gone is computed again on another one. The machines must see the images, the run and the
    folder of the tables at the same paths, for example in object storage.

    Args:
        work: what computes a shard.
        manifest: all rows.
        parts: the shards to compute.
        actors: models at most; by default one per GPU of the cluster, or else one per CPU.
        progress: called with the number of rows done and the total.

    Raises:
        UsageError: a shard cannot be computed; those that are done are kept.
        RunError: the cluster fails.
    """
    left, total = {number: len(part.places) for number, part in enumerate(parts)}, sum(len(p.places) for p in parts)
    with _cluster() as ray:
        reference = ray.put((_anywhere(manifest), list(parts)))
        for turn in _turns(left):
            try:
                for row in _results(ray, work, reference, list(left), actors):
                    if row["final"]:
                        raise UsageError(row["error"])
                    turn.append(row["error"])
                    if not row["error"] and left.pop(row["part"], None) is not None and progress is not None:
                        progress(total - sum(left.values()), total)
            except (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError) as gone:
                turn.append(_reason(gone))


def _turns(left: Mapping[int, int]) -> Iterator[list[str]]:
    """Yield a list for the errors of each turn, as long as shards are left: what a lost machine had is in the next one.

    Raises:
        RunError: three turns together have computed nothing.
    """
    idle = 0
    while left:
        before, errors = len(left), list[str]()
        yield errors
        idle = idle + 1 if len(left) == before else 0
        if idle == _MOST_IDLE:
            reason = next(filter(None, errors), "the machines that compute them are gone")
            raise RunError(f"{before} shards cannot be computed ({reason}); finished ones are kept: try again")
        if idle and left:
            time.sleep(_WAIT)


class _Actor:
    """Computes one shard after another, whose places in the list of shards it is given as batches of one row."""

    def __init__(self, work: ShardWork, reference: Any) -> None:
        import ray

        self._work = work
        self._manifest, self._parts = ray.get(reference)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number, error, final = int(batch["part"][0]), "", False
        try:
            self._work.compute(self._manifest, self._parts[number])
        except VisionAdaptError as raised:  # which no other machine would do without
            error, final = str(raised), True
        except Exception as raised:  # noqa: BLE001 - it may be this machine's fault
            error = _reason(raised)
        return {"part": [number], "error": [error], "final": [final]}


def _results(
    ray: Any, work: ShardWork, reference: Any, numbers: list[int], actors: int | None
) -> Iterator[dict[str, Any]]:
    """Compute shards, and yield what came of each; of those on a machine that is gone meanwhile, nothing.

    Ray would give such a shard to the same actor again, which may wait for ever for a machine to start on.
    """
    from ray.data import ActorPoolStrategy, from_items

    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if work.device == "auto" or work.device.startswith("cuda") else 0
    cpus = max(int(resources.get("CPU", 1)), 1)
    most = max(min(actors or gpus or cpus, len(numbers)), 1)
    mapped = from_items([{"part": number} for number in numbers], override_num_blocks=len(numbers)).map_batches(
        _Actor,
        batch_size=1,
        fn_constructor_kwargs={"work": work, "reference": reference},
        compute=ActorPoolStrategy(min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=1),
        num_cpus=max(cpus // gpus, 1) if gpus else 1,
        num_gpus=1 if gpus else 0,
        runtime_env={"env_vars": {ONE_ARENA: "1"}},  # an actor computes in a thread that Ray has started
        max_restarts=0,
        max_task_retries=0,
    )
    yield from mapped.iter_rows()


def _anywhere(manifest: Manifest) -> Manifest:
    """The same rows, with absolute paths."""
    source = manifest.source
    return manifest.of(source.resolved()) if isinstance(source, LocalSource) else manifest


@contextmanager
def _cluster() -> Iterator[Any]:
    """Provide Ray, connected to a cluster; what fails there becomes one line."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its authors
    with needing("--engine ray", "Ray Data", "ray"):
        import ray
        import ray.data
    own = not ray.is_initialized()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if own:
                _join(ray)
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars, context.print_on_execution_start = False, False
            context.max_errored_blocks = -1
            yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = _reason(error)
        raise RunError(f"the Ray cluster failed ({reason}); repeat the command: finished shards are kept") from error
    finally:
        if own:
            ray.shutdown()


def _join(ray: Any) -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine."""
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        reason = f"no Ray cluster can be reached or started ({_reason(error)})"
        raise RunError(f"{reason}; set RAY_ADDRESS, or start one with: ray start --head") from error


def _reason(error: BaseException) -> str:
    """One line about what first went wrong on a machine."""
    while (below := getattr(error, "cause", None) or error.__cause__) is not None:
        error = below
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
