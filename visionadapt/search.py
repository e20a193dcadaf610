"""`python -m visionadapt.search FEATURES IMAGE`: find the images that are most like one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionadapt.commands import shell
from visionadapt.errors import UsageError
from visionadapt.runs.options import InferenceOptions, OutputOptions

if TYPE_CHECKING:
    from visionadapt.frozen.pipeline import Pipeline

app = shell.app(
    "search",
    "python -m visionadapt.search features.parquet cat.jpg --top 10",
    "python -m visionadapt.search features.parquet cat.jpg --run runs/first",
    "python -m visionadapt.search train.parquet test.parquet --least 0.98",
)


@app.default
def main(
    features: str,
    image: str,
    /,
    *,
    top: int = 5,
    least: float = 0.95,
    run: str | None = None,
    inference: InferenceOptions | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Print the images whose features are nearest to those of an image, or all pairs of similar images of two files.

    Parameters
    ----------
    features
        File that embed wrote.
    image
        Image file to compare with; or another file that embed wrote, to find images that are in both; or the same file,
        to find those that are in it twice.
    top
        Number of images to print.
    least
        Cosine similarity from which images of two files are a pair.
    run
        Run folder, or hf://ORG/NAME, that the features were computed with, if it was one.
    """
    from visionadapt.prediction.embedding import SUFFIXES, read_embedding

    reporter = (output or OutputOptions()).reporter()
    embedding = read_embedding(Path(features))
    if Path(image).suffix in SUFFIXES:
        within = Path(image).resolve() == Path(features).resolve()
        for key, other, similarity in embedding.pairs(read_embedding(Path(image)), least):
            if within and key >= other:  # an image and itself, or a pair that is told already
                continue
            reporter.line(f"{similarity:.4f}  {key}  {other}")
            reporter.event("pair", {"key": key, "other": other, "similarity": round(similarity, 4)})
        return
    pipeline = _pipeline_of(features, embedding.facts, run, inference or InferenceOptions())
    vector = pipeline.for_few(1).outputs(pipeline.prepare.host(Path(image))[None])[0][0]
    own = vector[: pipeline.model.backbone.own_features].numpy()
    for key, similarity in embedding.nearest(own, top):
        reporter.line(f"{similarity:.4f}  {key}")
        reporter.event("neighbour", {"key": key, "similarity": round(similarity, 4)})


def _pipeline_of(features: str, facts: Mapping[str, Any], run: str | None, inference: InferenceOptions) -> Pipeline:
    """Return what computed a file of features.

    Raises:
        UsageError: it is something else, or would have to be downloaded.
    """
    from visionadapt.images import Preprocessing
    from visionadapt.runs import trust
    from visionadapt.runs.embedder import embedder

    if ("run" in facts) != (run is not None):
        remedy = "name its folder with --run" if run is None else "leave out --run"
        raise UsageError(f"{features} was computed with {'a run' if 'run' in facts else 'a backbone'}; {remedy}")
    name = str(facts.get("backbone"))
    wanted = trust.wants("backbone", name) if run is None else []
    if wanted:
        raise UsageError(f"{features} would {wanted[0]}; compute it with a run, and give --run")
    backbone = name if run is None else None
    found = embedder(run, backbone, inference.device, inference.weights, workers=inference.workers)
    pipeline, own = found.pipeline, found.facts
    weights = pipeline.model.backbone.weights_hash
    if own.get("run") != facts.get("run") or weights != facts.get("weights_hash"):
        raise UsageError(f"{features} has another run or other weights; name the right --run or --weights")
    if pipeline.prepare != Preprocessing.from_json(facts.get("preprocessing")):
        raise UsageError(f"{features} was computed with another preprocessing; compute it again")
    return pipeline


if __name__ == "__main__":
    shell.main(app)
