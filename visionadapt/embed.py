"""`python -m visionadapt.embed SOURCE --out features.parquet`: write the features of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Group, Parameter

from visionadapt.commands import shell
from visionadapt.errors import SourceError, UsageError
from visionadapt.runs.options import ClusterOptions, InferenceOptions, OutputOptions

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.core.records import Manifest, Source
    from visionadapt.core.sharding import Part
    from visionadapt.prediction.embedding import Precision
    from visionadapt.prediction.target import Target
    from visionadapt.runs.embedder import Embedder

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
    cluster: ClusterOptions | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Write the features of images, computed or from the cache: key, vector and distance of each.

    Parameters
    ----------
    data
        Folder, hf://datasets/ORG/NAME or s3:// place of images, or another source, such as
        csv(images.csv, image=file); labels are ignored.
    run
        Run folder, or hf://ORG/NAME, whose features to compute, with its adapter layers.
    backbone
        Name of a timm model whose features to compute; without --run, the default backbone.
    cache
        Folder of the feature cache; by default visionadapt in the user's cache folder.
    """
    from visionadapt.prediction.embedding import check_precision, check_suffix
    from visionadapt.prediction.shards import check_mergeable
    from visionadapt.runs.embedder import embedder

    target, cluster = Path(file.out), cluster or ClusterOptions()
    cluster.check(file.shard, file.out)
    check_precision(file.precision)
    check_suffix(target)
    if cluster.engine is not None:
        check_mergeable(target)
    if run is not None and backbone is not None:
        raise UsageError("--run has a backbone of its own; give either --run or --backbone")
    inference = inference or InferenceOptions()
    manifest, part = _images(data, file.shard)
    found = embedder(
        run,
        backbone,
        inference.device,
        inference.weights,
        images=len(manifest),
        workers=inference.workers,
        cache=Path(cache) if cache else None,
    )
    job = Job(found, manifest, file, cache, inference, (output or OutputOptions()).reporter())
    if cluster.engine is not None:
        job.on_cluster(cluster, run, backbone)
    else:
        job.here(part)


@dataclass(frozen=True)
class Job:
    """What computes features, the images, and the file."""

    embedder: Embedder
    manifest: Manifest
    file: FileOptions
    cache: str | None
    inference: InferenceOptions
    reporter: Reporter

    def here(self, part: Part | None) -> None:
        """Compute the features in this process."""
        from visionadapt.prediction.embedding import described, embed_into, model_hash
        from visionadapt.prediction.shards import write_proof
        from visionadapt.prediction.target import Target
        from visionadapt.system.cache_folder import default_folder

        found, target = self.embedder, Target(self.file.out).of(None if part is None else part.shard)
        with self.reporter.progress("images") as progress:
            count, rejected = embed_into(
                target.local,
                found.pipeline,
                self.manifest,
                Path(self.cache) if self.cache else default_folder(),
                calibration=found.calibration,
                facts=found.facts,
                precision=self._precision,
                workers=self.inference.workers,
                progress=progress,
            )
        if part is not None:
            model, gone = model_hash(described(found.pipeline, found.facts)), [row.row for row in rejected]
            write_proof(target.local, part, model, len(rejected), gone)
        target.publish(proof=part is not None)
        for row in rejected[:10]:
            self.reporter.say(f"{row.key}  rejected: {row.problem}")
        self._tell(target, count, len(rejected))

    def on_cluster(self, options: ClusterOptions, run: str | None, backbone: str | None) -> None:
        """Compute the features on a cluster."""
        from visionadapt.clusters.shard_work import EmbedShards
        from visionadapt.clusters.table import compute_table
        from visionadapt.prediction.embedding import described, model_hash
        from visionadapt.prediction.target import Target
        from visionadapt.runs.hub import on_hub

        found = self.embedder
        work = EmbedShards(
            Target(self.file.out).absolute(),
            model_hash(described(found.pipeline, found.facts)),
            self.inference.device,
            self.inference.weights,
            run=run if run is None or on_hub(run) else str(Path(run).absolute()),
            backbone=backbone,
            plan=found.pipeline.plan,
            precision=self._precision,
            cache=Path(self.cache).absolute() if self.cache else None,
        )
        with self.reporter.progress("images") as progress:
            outcome = compute_table(work, self.manifest, options, progress=progress)
        self._tell(Target(self.file.out), outcome.classified, outcome.rejected)

    @property
    def _precision(self) -> Precision:
        from visionadapt.prediction.embedding import check_precision

        return check_precision(self.file.precision)

    def _tell(self, target: Target, rows: int, rejected: int) -> None:
        width = self.embedder.pipeline.model.backbone.own_features
        self.reporter.say(f"{target}: {rows} vectors of {width} features, {rejected} rejected")
        facts = {"rows": rows, "features": width, "rejected": rejected}
        self.reporter.event("embedding", {"out": str(target), **facts})
        self.reporter.answer(str(target))


def _images(data: str, shard: str | None = None) -> tuple[Manifest, Part | None]:
    from visionadapt.core.sharding import rows_of
    from visionadapt.sources import BucketSource, FolderSource
    from visionadapt.sources.hub import is_hub_address
    from visionadapt.sources.objects.urls import is_object_url
    from visionadapt.sources.opening import open_images, open_source

    if is_object_url(data):
        source: Source = BucketSource(data, labelled=False)
    elif is_hub_address(data):
        source = open_images(data)
    else:
        source = FolderSource(data, labelled=False) if Path(data).is_dir() else open_source(data)
    manifest, part = rows_of(source, shard)
    if part is None and not len(manifest):
        raise SourceError(f"no images in {data}; name a folder or another source")
    return manifest, part


if __name__ == "__main__":
    shell.main(app)
