"""Write an evaluation into a folder."""

from __future__ import annotations

from pathlib import Path

from visionadapt.errors import RunError
from visionadapt.evaluation.evaluation import Evaluation
from visionadapt.prediction.tables import writing
from visionadapt.system.csv_text import table_text
from visionadapt.system.storage import write_bytes, write_json, write_text


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write the metrics, their charts, `predictions.csv` and `rejected.csv` into a folder, or raise RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made ({error.strerror}); give another --out") from error
    write_figures(folder, evaluation)
    for name, content in evaluation.images().items():
        write_bytes(folder / name, content)
    write_predictions(folder / "predictions.csv", evaluation)
    write_text(folder / "rejected.csv", table_text(("file", "reason"), evaluation.rejected))


def write_figures(folder: Path, evaluation: Evaluation) -> None:
    """Write `evaluation.json`, and the evaluation's tables as CSV, or raise RunError."""
    found = evaluation.figures()
    write_json(folder / "evaluation.json", found)
    tables = evaluation.tables(found)
    for name, table in tables.items():
        write_text(folder / name, table_text(*table))
    if "slices.csv" not in tables:
        (folder / "slices.csv").unlink(missing_ok=True)


def write_predictions(path: Path, evaluation: Evaluation) -> None:
    """Write every prediction beside its true classes; see `visionadapt.prediction.tables.writing`."""
    with writing(path, evaluation.classes, evaluation.task, true_classes=True) as write:
        write(evaluation.predictions, evaluation.true_classes)
