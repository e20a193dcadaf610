"""Images that a run was trained and validated on, from where its data was, for calibrating and measuring exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from visionadapt.errors import ImageError, SourceError, VisionAdaptError
from visionadapt.export.golden import Array, decoded
from visionadapt.prediction.predictor import Predictor
from visionadapt.report.embedded_images import ImageReader
from visionadapt.runs import trust
from visionadapt.runs.folder import read_json
from visionadapt.runs.ledger import LEDGER, ledger_rows
from visionadapt.runs.options import read_options


class RunImages(NamedTuple):
    """Decoded images uint8 [H, W, C] of one part of a run, and their class indices; None for several labels."""

    images: list[Array]
    labels: list[int] | None


def run_images(run: Path, predictor: Predictor, part: str, most: int) -> RunImages:
    """Return images of the part `train` or `val` of a run, spread evenly over it.

    Raises:
        SourceError: the run does not say which they are, or they are no longer there; the message says why.
    """
    if not (run / LEDGER).exists():
        raise SourceError("the run does not say which images it was trained on")
    rows = [row for row in ledger_rows(run, ("file", "part", "status", "labels")) if row["part"] == part]
    usable = [row for row in rows if row["status"] != "rejected"]
    chosen = usable[:: max(len(usable) // most, 1)][:most]
    reader = ImageReader(_data(run), {row["file"] for row in chosen})
    found = list(_read(reader, predictor, [(row["file"], row["labels"]) for row in chosen]))
    if not found:
        raise SourceError("the images of the run are no longer where they were")
    images = [image for image, _ in found]
    single = predictor.task == "single"
    return RunImages(images, [predictor.classes.index(labels[0]) for _, labels in found] if single else None)


def _read(
    reader: ImageReader, predictor: Predictor, rows: list[tuple[str, list[str]]]
) -> Iterator[tuple[Array, list[str]]]:
    for file, labels in rows:
        try:
            yield decoded(predictor.prepare, reader.read(file)), labels
        except ImageError:
            continue


def _data(run: Path) -> str:
    """Return the text that the run's data was opened with."""
    stored = read_options(read_json(run, "config.json")).get("data")
    if not isinstance(stored, str):
        raise SourceError("the run does not say where its images are")
    reasons = trust.wants("data", stored)
    if reasons:
        raise SourceError(f"to read its images, the run would {' and '.join(reasons)}")
    return stored


def problem(error: VisionAdaptError) -> str:
    """Return why images are not available, without what to do about it."""
    return str(error).partition(";")[0]
