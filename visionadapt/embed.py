"""`python -m visionadapt.embed SOURCE --out features.parquet`: write the features of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Group, Parameter

from visionadapt.commands import shell
from visionadapt.errors import SourceError, UsageError
from visionadapt.run_folder.options import InferenceOptions, OutputOptions

if TYPE_CHECKING:
    from visionadapt.core.records import Manifest, Source
    from visionadapt.core.sharding import Part
    from visionadapt.frozen.pipeline import Pipeline
    from visionadapt.prediction.calibration import Calibration
    from visionadapt.prediction.embedding import Embedding, Rejected

app = shell.app(
    "embed",
    "python -m visionadapt.embed photos --out features.parquet",
    "python -m visionadapt.embed photos --run runs/first --precision float16 --out features.parquet",
    "python -m visionadapt.embed photos --backbone vit_small_patch16_224.augreg_in21k --out features.safetensors",
)


@Parameter(name="*", group=Group("File", sort_key=2))
@dataclass(frozen=True)
class FileOptions:
    """The file that is written."""

    out: str
    """File to write: .parquet, .safetensors or .npz; an existing one is replaced."""

    precision: str = "float32"
    """Number format of the vectors: float32 or float16."""

    shard: str | None = None
    """Compute one part of the images only, such as 3/16, into features-00003-of-00016.parquet; merge puts the parts
    together."""


@app.default
def main(
    data: str,
    /,
    *,
    file: FileOptions,
    run: str | None = None,
    backbone: str | None = None,
    cache: str | None = None,
    inference: InferenceOptions | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Write the features of images, computed or from the cache: key, vector and distance of each.

    Parameters
    ----------
    data
        Folder or s3:// place of images, or another source, such as csv(images.csv, image=file); labels are ignored.
    run
        Run folder whose features to compute, with its adapter layers.
    backbone
        Name of a timm model whose features to compute; without --run, the default backbone.
    cache
        Folder of the feature cache; by default visionadapt in the user's cache folder.
    """
    from visionadapt.frozen.cache.store import default_folder
    from visionadapt.prediction.embedding import check_precision, check_suffix, embed, write_embedding

    target, number_format = Path(file.out), check_precision(file.precision)
    check_suffix(target)
    if run is not None and backbone is not None:
        raise UsageError("--run has a backbone of its own; give either --run or --backbone")
    inference = inference or InferenceOptions()
    reporter = (output or OutputOptions()).reporter()
    folder = Path(cache) if cache else default_folder()
    manifest, part = _images(data, file.shard)
    if part is not None:
        target = part.shard.path(target)
    pipeline, calibration, facts = opened(run, backbone, inference, images=len(manifest), cache=folder)
    with reporter.progress("images") as progress:
        embedding, rejected = embed(
            pipeline,
            manifest,
            folder,
            calibration=calibration,
            facts=facts,
            precision=number_format,
            workers=inference.workers,
            progress=progress,
        )
    write_embedding(target, embedding)
    if part is not None:
        _prove(target, part, embedding, rejected)
    for row in rejected[:10]:
        reporter.say(f"{row.key}  rejected: {row.problem}")
    width = embedding.vectors.shape[1]
    reporter.say(f"{target}: {len(embedding)} vectors of {width} features, {len(rejected)} rejected")
    facts = {"rows": len(embedding), "features": width, "rejected": len(rejected)}
    reporter.event("embedding", {"out": str(target), **facts})
    reporter.answer(str(target))


def _prove(target: Path, part: Part, embedding: Embedding, rejected: Sequence[Rejected]) -> None:
    """Write the proof beside the file of a shard."""
    from visionadapt.prediction.shards import write_proof

    model = hashlib.sha256(json.dumps(dict(embedding.facts), sort_keys=True, default=str).encode()).hexdigest()
    write_proof(target, part, model, len(rejected), [row.row for row in rejected])


def _images(data: str, shard: str | None = None) -> tuple[Manifest, Part | None]:
    from visionadapt.core.sharding import rows_of
    from visionadapt.sources import BucketSource, FolderSource
    from visionadapt.sources.objects.urls import is_object_url
    from visionadapt.sources.opening import open_source

    if is_object_url(data):
        source: Source = BucketSource(data, labelled=False)
    else:
        source = FolderSource(data, labelled=False) if Path(data).is_dir() else open_source(data)
    manifest, part = rows_of(source, shard)
    if part is None and not len(manifest):
        raise SourceError(f"no images in {data}; name a folder or another source")
    return manifest, part


def opened(
    run: str | None, backbone: str | None, inference: InferenceOptions, *, images: int, cache: Path
) -> tuple[Pipeline, Calibration | None, dict[str, Any]]:
    """Return what computes the features of a run or of a backbone, the run's calibration, and facts to store."""
    import torch

    from visionadapt.backbones import default_name, load
    from visionadapt.core.settings import TrainingSettings
    from visionadapt.frozen.part import FrozenPart
    from visionadapt.frozen.pipeline import Pipeline
    from visionadapt.frozen.planning import Job, make_plan
    from visionadapt.model.classifier import Classifier
    from visionadapt.model.preprocessing import preprocessing_for
    from visionadapt.run_folder import saved
    from visionadapt.system.storage import file_sha256

    if run is not None:
        predictor = saved.load(run, inference.device, weights=inference.weights)
        torch.set_num_threads(predictor.plan.threads)
        facts = {"run": file_sha256(Path(run) / "model.safetensors")}
        return predictor.pipeline, predictor.calibration, facts
    model = Classifier(load(backbone or default_name, inference.weights or "pretrained"), ("any",), None)
    frozen = FrozenPart(model.eval())
    settings = TrainingSettings(device=inference.device, workers=inference.workers)
    plan = make_plan(frozen, settings, Job(train=images, cache=cache))
    torch.set_num_threads(plan.threads)
    return Pipeline(frozen, preprocessing_for(model), plan), None, {}


if __name__ == "__main__":
    shell.main(app)
