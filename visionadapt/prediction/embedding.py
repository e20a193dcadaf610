"""`Embedding`: the pooled features of many images under their keys, as a file of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from visionadapt.core.records import Manifest
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import RunError, UsageError
from visionadapt.frozen.features import Progress, compute_features
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.prediction.calibration import Calibration
from visionadapt.system.storage import replacing
from visionadapt.system.text import utf8_safe

Vectors = NDArray[np.floating[Any]]
Precision = Literal["float32", "float16"]
SUFFIXES = (".parquet", ".safetensors", ".npz")
_FACTS = "visionadapt"
_ROWS_AT_ONCE = 1024
_VECTORS_AT_ONCE = 4096
_MOST_PAIRS = 10_000_000


@dataclass(frozen=True)
class Embedding:
    """Pooled features of N images; D features.

    Attributes:
        keys: the images' keys in their source.
        vectors: float32 or float16 [N, D].
        distances: dissimilarity to the training images of a run, float32 [N]; NaN where it is not known.
        facts: what the vectors were computed with, as plain data: backbone, weights, preprocessing, run.
    """

    keys: tuple[str, ...]
    vectors: Vectors
    distances: NDArray[np.float32]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def nearest(self, vector: Vectors, number: int) -> list[tuple[str, float]]:
        """Return the keys of the nearest images to a vector [D] and their cosine similarities in [−1, 1].

        Raises:
            UsageError: the vector has another length.
        """
        if vector.shape != self.vectors.shape[1:]:
            raise UsageError(f"a vector of {vector.size} features cannot be compared with {self.vectors.shape[1]}")
        similarities = _unit_length(self.vectors) @ _unit_length(vector[None])[0]
        best = np.argsort(-similarities, kind="stable")[:number]
        return [(self.keys[row], float(similarities[row])) for row in best]

    def pairs(self, other: Embedding, least: float) -> list[tuple[str, str, float]]:
        """Return the keys of each own image and each image of `other` that are at least so similar, best first.

        Raises:
            UsageError: the two were not computed alike, or there are more than ten million pairs.
        """
        for name in ("backbone", "weights_hash", "run", "preprocessing"):
            if self.facts.get(name) != other.facts.get(name):
                raise UsageError(f"the two files of features differ in {name}; compute both alike")
        theirs, found = _unit_length(other.vectors), []
        for start in range(0, len(self), _ROWS_AT_ONCE):
            similarities = _unit_length(self.vectors[start : start + _ROWS_AT_ONCE]) @ theirs.T
            for row, column in np.argwhere(similarities >= least):
                found.append((self.keys[start + row], other.keys[column], float(similarities[row, column])))
            if len(found) > _MOST_PAIRS:
                raise UsageError(f"more than {_MOST_PAIRS:,} pairs are that similar; give a higher --least")
        return sorted(found, key=lambda pair: -pair[2])


@dataclass(frozen=True)
class Rejected:
    """An image without a vector: its key, why, and the number of its row."""

    key: str
    problem: str
    row: int


def embed(
    pipeline: Pipeline,
    manifest: Manifest,
    cache: Path,
    *,
    calibration: Calibration | None = None,
    facts: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    workers: int = -1,
    progress: Progress | None = None,
) -> tuple[Embedding, list[Rejected]]:
    """Compute the pooled features of every usable row, or find them in the cache; labels are ignored.

    Args:
        pipeline: classifier, preprocessing and plan.
        manifest: the rows.
        cache: folder of the feature cache.
        calibration: knows the distance to the training images; None for a backbone without a run.
        facts: what is said about the vectors in the file besides backbone, weights and preprocessing.
        precision: number format of the vectors.
        workers: processes that read images; −1 chooses.
        progress: called with the number of rows done and the total.
    """
    options: dict[str, Any] = {"calibration": calibration, "facts": facts, "precision": precision, "workers": workers}
    parts = list(_parts(pipeline, manifest, cache, len(manifest) or 1, progress, **options))
    keys = tuple(key for part, _ in parts for key in part.keys)
    vectors = np.concatenate([part.vectors for part, _ in parts])
    distances = np.concatenate([part.distances for part, _ in parts])
    return Embedding(keys, vectors, distances, parts[0][0].facts), [row for _, gone in parts for row in gone]


def embed_into(
    path: Path,
    pipeline: Pipeline,
    manifest: Manifest,
    cache: Path,
    *,
    rows_at_once: int = 32_768,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[int, list[Rejected]]:
    """Write what `embed` returns as `write_embedding` does; Parquet in memory that does not grow with the rows.

    Args:
        path: the file.
        pipeline, manifest, cache, progress: as in `embed`, and so are calibration, facts, precision and workers.
        rows_at_once: how many rows of a Parquet file are looked up together.

    Returns:
        How many vectors there are, and the rows without one.
    """
    check_suffix(path)
    if path.suffix != ".parquet":
        embedding, rejected = embed(pipeline, manifest, cache, progress=progress, **options)
        write_embedding(path, embedding)
        return len(embedding), rejected
    count, gone = 0, list[Rejected]()
    with replacing(path) as file, ExitStack() as opened:
        writer: Any = None
        for part, rejected in _parts(pipeline, manifest, cache, rows_at_once, progress, **options):
            table = _table(part)
            writer = writer or opened.enter_context(parquet.ParquetWriter(file, table.schema, compression="zstd"))
            writer.write_table(table)
            count, gone = count + len(part), gone + rejected
    return count, gone


def _parts(
    pipeline: Pipeline,
    manifest: Manifest,
    cache: Path,
    rows_at_once: int,
    progress: Progress | None,
    *,
    calibration: Calibration | None = None,
    facts: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    workers: int = -1,
) -> Iterator[tuple[Embedding, list[Rejected]]]:
    """Yield the vectors of the rows, some thousand at once, and the rejected rows among them; at least one part."""
    settings = TrainingSettings(task="multilabel", workers=workers)  # a row needs no label
    told, step = described(pipeline, facts), -(-_VECTORS_AT_ONCE // pipeline.plan.batch_size) * pipeline.plan.batch_size
    for start in range(0, max(len(manifest), 1), rows_at_once):
        chosen = manifest.select(range(start, min(start + rows_at_once, len(manifest))))
        found = compute_features(pipeline, chosen, settings, cache, progress=_from(start, len(manifest), progress))
        rejected = [
            Rejected(chosen.key(finding.index), finding.problem, start + finding.index)
            for finding in found.findings
            if finding.problem is not None
        ]
        for first in range(0, max(len(found), 1), step):
            rows = range(first, min(first + step, len(found)))
            vectors = found.pooled(rows)[:, : pipeline.model.backbone.own_features]
            distances = torch.full((len(rows),), torch.nan) if calibration is None else calibration.distances(vectors)
            keys = tuple(found.manifest.key(row) for row in rows)
            kept = vectors.numpy().astype(precision)
            yield Embedding(keys, kept, distances.float().numpy(), told), rejected if first == 0 else []


def _from(start: int, total: int, progress: Progress | None) -> Progress | None:
    """The progress of some rows as that of all."""
    return None if progress is None else lambda done, _: progress(start + done, total)


def described(pipeline: Pipeline, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what is said about vectors in their file: backbone, weights, preprocessing, and further facts."""
    backbone = pipeline.model.backbone
    return {
        "backbone": backbone.name,
        "weights_hash": backbone.weights_hash,
        "image_size": backbone.config.image_size,
        "preprocessing": pipeline.prepare.to_json(),
        **(facts or {}),
    }


def model_hash(facts: Mapping[str, Any]) -> str:
    """Hash what `described` returns: vectors of one hash belong into one table."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True, default=str).encode()).hexdigest()


def write_embedding(path: Path, embedding: Embedding) -> None:
    """Write keys, vectors and distances as .parquet, .safetensors or .npz.

    In Parquet, the columns are key, vector (a list of fixed size) and distance (null where it is not known), and the
    facts are JSON in the schema's metadata under `visionadapt`. The others hold arrays `vector` and `distance`; the
    keys are an array in .npz and JSON in the metadata of .safetensors.

    Raises:
        UsageError: the suffix is another one.
        RunError: the file cannot be written; an existing one is unchanged.
    """
    check_suffix(path)
    with replacing(path) as file:
        if path.suffix == ".parquet":
            parquet.write_table(_table(embedding), file, compression="zstd")
        elif path.suffix == ".npz":
            names = np.array([utf8_safe(key) for key in embedding.keys], dtype=np.str_)
            facts = np.array(json.dumps(dict(embedding.facts)))
            np.savez(file, key=names, vector=embedding.vectors, distance=embedding.distances, facts=facts)
        else:
            arrays = {"vector": np.ascontiguousarray(embedding.vectors), "distance": embedding.distances}
            text = json.dumps({**embedding.facts, "keys": embedding.keys})
            file.write(safetensors_bytes(arrays, {_FACTS: text}))


def read_embedding(path: Path) -> Embedding:
    """Read what `write_embedding` wrote; raise RunError if it is damaged or something else."""
    check_suffix(path)
    try:
        if path.suffix == ".parquet":
            return _from_table(parquet.read_table(path))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                keys = tuple(map(str, file["key"]))
                return _checked(keys, file["vector"], file["distance"], json.loads(str(file["facts"])))
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return _checked(tuple(facts.pop("keys")), file.get_tensor("vector"), file.get_tensor("distance"), facts)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError, pa.ArrowException) as error:
        raise RunError(f"{path} cannot be read ({error}); write it again with visionadapt embed") from error


def check_suffix(path: Path) -> None:
    """Raise UsageError if a file name has no suffix of a known kind."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def check_precision(precision: str) -> Precision:
    """Return a number format of vectors; raise UsageError if it is none."""
    for known in get_args(Precision):
        if precision == known:
            found: Precision = known
            return found
    raise UsageError(f"--precision {precision!r} must be one of {', '.join(get_args(Precision))}")


def _unit_length(rows: Vectors) -> NDArray[np.float32]:
    """[N, D] → float32 [N, D] of length 1; zeros stay."""
    floats = rows.astype(np.float32)
    scaled: NDArray[np.float32] = floats / np.maximum(np.linalg.norm(floats, axis=1, keepdims=True), np.float32(1e-12))
    return scaled


def _table(embedding: Embedding) -> pa.Table:
    kind = pa.float16() if embedding.vectors.dtype == np.float16 else pa.float32()
    flat = pa.array(embedding.vectors.reshape(-1), kind)
    vectors = pa.FixedSizeListArray.from_arrays(flat, embedding.vectors.shape[1])
    distances = pa.array(embedding.distances, pa.float32(), mask=np.isnan(embedding.distances))
    keys = pa.array([utf8_safe(key) for key in embedding.keys], pa.string())
    facts = {_FACTS: json.dumps(dict(embedding.facts))}
    schema = pa.schema([("key", pa.string()), ("vector", vectors.type), ("distance", pa.float32())], metadata=facts)
    return pa.Table.from_arrays([keys, vectors, distances], schema=schema)


def _from_table(table: pa.Table) -> Embedding:
    vectors = table.column("vector").combine_chunks()
    size = vectors.type.list_size
    flat = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    distances = table.column("distance").to_numpy(zero_copy_only=False).astype(np.float32)
    facts = json.loads((table.schema.metadata or {})[_FACTS.encode()])
    return _checked(tuple(table.column("key").to_pylist()), flat, distances, facts)


def _checked(keys: Sequence[str], vectors: Vectors, distances: NDArray[Any], facts: Any) -> Embedding:
    if not isinstance(facts, dict) or vectors.ndim != 2 or not len(keys) == len(vectors) == len(distances):
        raise ValueError("keys, vectors and facts do not belong together")
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("a key is no text")
    return Embedding(tuple(keys), vectors, distances.astype(np.float32), facts)
