"""Write a section of docs/measurements/export.md: an export behind Pillow alone, against `predict`, on odd files.

    python -m benchmarks.pillow_decoding RUN

The files are those of `sample_images/train` that are no plain photographs (modes, EXIF orientations, sizes, formats)
and one of every kind that the tests write. Pillow decodes them as the export's `example.py` does.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from PIL import Image

import visionadapt as va
from benchmarks.export import PAGE
from benchmarks.sections import write_section
from tests.images.kinds import KINDS, written
from visionadapt.errors import ImageError
from visionadapt.export.export import export
from visionadapt.export.golden import Array, decoded, decoded_by_pillow
from visionadapt.prediction.predictor import Predictor

_SAMPLES = Path(__file__).parents[1] / "sample_images" / "train"
_TITLE = "## Decoding by Pillow alone"
_TEXT = """{title}

This section is written by `python -m benchmarks.pillow_decoding`; do not edit it.

{count} odd files, decoded by Pillow as `example.py` does and classified by `model.onnx`, against `predict` on the
files themselves: {samples} of `sample_images` (modes, EXIF orientations, sizes, formats), and one of each of {kinds}
kinds that the tests write from a photograph. {backbone}, adapter {adapter}.

| files | | same label | largest difference of a probability |
|---|---|---|---|
| {same} | Pillow alone gives the same pixels | {same_labels} | {same_apart:.1g} |
| {other} | other pixels | {other_labels} | {other_apart:.2g} |
| {refused} | read by one of the two only | | |

The files with other pixels, by kind:

| kind | files | pixels differ by, of 255: mean, most | same label | largest difference of a probability |
|---|---|---|---|---|
{rows}

{unread}
"""
_ALL_READ = "Pillow alone reads all of them, HEIC with pillow-heif."


@dataclass(frozen=True)
class Case:
    """One file: its kind, how far Pillow's pixels are from the library's, and the export's answer from `predict`'s."""

    kind: str
    mean: float
    most: float
    same_label: bool
    probability: float


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    run = parser.parse_args().run
    predictor = va.load(run, "cpu")
    with TemporaryDirectory() as folder:
        model = export(run, Path(folder) / "exported") / "model.onnx"
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    cases, unread = [], []
    files = [*samples(), *made()]
    for kind, data in files:
        try:
            cases.append(compared(kind, data, predictor, session))
        except (OSError, ValueError, ImageError) as error:
            unread.append(f"{kind} ({type(error).__name__})")
    same = [case for case in cases if not case.most]
    other = [case for case in cases if case.most]
    text = _TEXT.format(
        title=_TITLE,
        count=len(files),
        samples=len(files) - len(KINDS),
        kinds=len(KINDS),
        backbone=predictor.classifier.backbone.name,
        adapter=predictor.classifier.adapter or "none",
        same=len(same),
        same_labels=labels(same),
        same_apart=max(case.probability for case in same),
        other=len(other),
        other_labels=labels(other),
        other_apart=max(case.probability for case in other),
        refused=len(unread),
        rows="\n".join(rows(other)),
        unread=f"Not read by Pillow alone: {', '.join(unread)}." if unread else _ALL_READ,
    )
    write_section(PAGE, text)


def samples() -> Iterator[tuple[str, bytes]]:
    """Kind and bytes of the odd files of `sample_images`."""
    for path in sorted(_SAMPLES.rglob("*.*")):
        if not path.stem.isdecimal():
            yield path.name, path.read_bytes()


def made() -> Iterator[tuple[str, bytes]]:
    """Kind and bytes of one file of every kind that the tests write."""
    with Image.open(next(_SAMPLES.rglob("landscape.jpg"))) as image:
        photo = image.convert("RGB").resize((240, 160))
    for kind in KINDS:
        yield kind, written(photo, kind)


def compared(kind: str, data: bytes, predictor: Predictor, session: onnxruntime.InferenceSession) -> Case:
    """Decode a file by Pillow alone, and compare pixels and answers; raise what either decoder raises."""
    pixels, own = decoded_by_pillow(data), decoded(predictor.prepare, data)
    found = session.run(["probabilities"], {"image": pixels[None]})[0][0]
    exact = np.array(predictor.predict(data).probabilities)
    same_size = pixels.shape == own.shape
    apart: Array = np.abs(pixels.astype(int) - own.astype(int)) if same_size else np.full(1, 255)
    same = bool(found.argmax() == exact.argmax())
    return Case(kind, float(apart.mean()), float(apart.max()), same, float(np.abs(found - exact).max()))


def labels(cases: Sequence[Case]) -> str:
    """How many have the same label."""
    return f"{sum(case.same_label for case in cases)} of {len(cases)}"


def rows(cases: Sequence[Case]) -> Iterator[str]:
    """One row for each kind."""
    kinds = defaultdict(list)
    for case in cases:
        kinds[case.kind].append(case)
    for kind, some in kinds.items():
        pixels = f"{max(case.mean for case in some):.2g}, {max(case.most for case in some):.0f}"
        probability = max(case.probability for case in some)
        yield f"| {kind} | {len(some)} | {pixels} | {labels(some)} | {probability:.2g} |"


if __name__ == "__main__":
    main()
