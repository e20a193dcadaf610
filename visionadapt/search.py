"""`python -m visionadapt.search FEATURES IMAGE`: find the images that are most like one."""

from __future__ import annotations

from pathlib import Path

from visionadapt.commands import shell
from visionadapt.errors import UsageError
from visionadapt.run_folder.options import InferenceOptions, OutputOptions

app = shell.app(
    "search",
    "python -m visionadapt.search features.parquet cat.jpg --top 10",
    "python -m visionadapt.search features.parquet cat.jpg --run runs/first",
)


@app.default
def main(
    features: str,
    image: str,
    /,
    *,
    top: int = 5,
    run: str | None = None,
    inference: InferenceOptions | None = None,
    output: OutputOptions | None = None,
) -> None:
    """Print the images whose features are nearest to those of an image, by cosine similarity.

    Parameters
    ----------
    features
        File that embed wrote.
    image
        Image file to compare with.
    top
        Number of images to print.
    run
        Run folder that the features were computed with, if it was one.
    """
    from visionadapt.embed import opened
    from visionadapt.frozen.cache.store import default_folder
    from visionadapt.images import Preprocessing
    from visionadapt.prediction.embedding import read_embedding
    from visionadapt.run_folder import trust

    embedding, inference = read_embedding(Path(features)), inference or InferenceOptions()
    facts = embedding.facts
    name = str(facts.get("backbone"))
    if ("run" in facts) != (run is not None):
        remedy = "name its folder with --run" if run is None else "leave out --run"
        raise UsageError(f"{features} was computed with {'a run' if 'run' in facts else 'a backbone'}; {remedy}")
    wanted = trust.wants("backbone", name) if run is None else []
    if wanted:
        raise UsageError(f"{features} would {wanted[0]}; compute it with a run, and give --run")
    pipeline, _, own = opened(run, name if run is None else None, inference, images=1, cache=default_folder())
    weights = pipeline.model.backbone.weights_hash
    if own.get("run") != facts.get("run") or weights != facts.get("weights_hash"):
        raise UsageError(
            f"{features} was computed with another run or other weights; name the right --run or --weights"
        )
    if pipeline.prepare != Preprocessing.from_json(facts.get("preprocessing")):
        raise UsageError(f"{features} was computed with another preprocessing; compute it again")
    pixels = pipeline.prepare.host(Path(image))
    vector = pipeline.outputs(pixels[None])[0][0].numpy()
    reporter = (output or OutputOptions()).reporter()
    for key, similarity in embedding.nearest(vector, top):
        reporter.line(f"{similarity:.4f}  {key}")
        reporter.event("neighbour", {"key": key, "similarity": round(similarity, 4)})


if __name__ == "__main__":
    shell.main(app)
