"""Write predictions as CSV, JSON Lines or Parquet, depending on the suffix of the file name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from visionadapt.errors import UsageError
from visionadapt.prediction.prediction import Prediction
from visionadapt.system.csv_text import row_text
from visionadapt.system.storage import replacing
from visionadapt.system.text import utf8_safe
from visionadapt.tasks import TaskName, plain_task

Truth = tuple[str, ...]
"""The true classes of a row; empty where it has none, or they are unknown."""

Write = Callable[[Sequence[Prediction], Sequence[Truth]], None]
"""Appends predictions, and their true classes where the table has such a column."""
Cells = dict[str, Any]
Add = Callable[[list[Cells]], None]

SUFFIXES = (".csv", ".jsonl", ".parquet")
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


def check_suffix(path: Path) -> None:
    """Raise UsageError if a file name has no suffix of a known kind of table."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


@contextmanager
def writing(path: Path, classes: Sequence[str], task: TaskName, true_classes: bool = False) -> Iterator[Write]:
    """Provide a function that appends rows; the file appears when all are written, and replaces an existing one.

    The columns are file, true_class (if `true_classes` is set), label, probability, abstain, distance and problem; then
    in CSV one `probability of CLASS` per class, in JSON Lines `probabilities`, an object by class, in Parquet
    `probabilities`, a list in the order of the classes, which the file's metadata holds under `classes`. Missing values
    are empty in CSV and null elsewhere. In CSV, a string that a spreadsheet would read as a formula is prefixed with an
    apostrophe; bytes of a file name that are not UTF-8 are written as escapes.

    Where an image may have several classes, true_classes and labels replace true_class and label (lists in JSON Lines
    and Parquet, joined by `|` in CSV), and there is no probability and no abstain.

    Raises:
        RunError: the file cannot be written; an existing one is unchanged.
    """
    with replacing(path) as file, writing_to(file, path.suffix.lower(), classes, task, true_classes) as write:
        yield write


@contextmanager
def writing_to(
    file: BinaryIO,
    suffix: str,
    classes: Sequence[str],
    task: TaskName,
    true_classes: bool = False,
    decimals: int | None = None,
) -> Iterator[Write]:
    """Provide a function that appends rows to an open file, as `writing` does to one with this suffix.

    With `decimals`, numbers are rounded.
    """
    kinds = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
    own = plain_task(task)
    columns = ("file", *((own.truth_column,) if true_classes else ()), *own.columns)
    with kinds[suffix](file, classes, columns) as add:
        yield lambda rows, truths: add(
            [_rounded(_cells(*both, columns), decimals) for both in zip(rows, truths, strict=True)]
        )


def columns_of(rows: Sequence[Prediction], task: TaskName) -> dict[str, list[Any]]:
    """Return the cells of predictions by column, as in Parquet, without the file; None where there is no value."""
    columns = tuple(plain_task(task).columns)
    found = [_cells(row, (), columns) for row in rows]
    return {name: [cells[name] for cells in found] for name in (*columns, "probabilities")}


@contextmanager
def _csv(file: BinaryIO, classes: Sequence[str], columns: Sequence[str]) -> Iterator[Add]:
    file.write(row_text((*columns, *(f"probability of {name}" for name in classes))).encode())

    def add(rows: list[Cells]) -> None:
        for row in rows:
            *cells, probabilities = row.values()
            plain = (*cells, *(probabilities or ("",) * len(classes)))
            file.write(row_text([_csv_cell(cell) for cell in plain]).encode())

    yield add


@contextmanager
def _json_lines(file: BinaryIO, classes: Sequence[str], columns: Sequence[str]) -> Iterator[Add]:
    names = [utf8_safe(name) for name in classes]

    def add(rows: list[Cells]) -> None:
        for row in rows:
            probabilities = row["probabilities"]
            named = None if probabilities is None else dict(zip(names, probabilities, strict=True))
            line = json.dumps({**row, "probabilities": named}, ensure_ascii=False, allow_nan=False)
            file.write(f"{line.translate(_LINE_ENDS)}\n".encode())

    yield add


@contextmanager
def _parquet(file: BinaryIO, classes: Sequence[str], columns: Sequence[str]) -> Iterator[Add]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    kinds = {
        **dict.fromkeys(("probability", "distance"), pa.float64()),
        **dict.fromkeys(("labels", "true_classes"), pa.list_(pa.string())),
        "abstain": pa.bool_(),
    }
    fields = [(name, kinds.get(name, pa.string())) for name in columns]
    facts = {"classes": json.dumps([utf8_safe(name) for name in classes])}
    schema = pa.schema([*fields, ("probabilities", pa.list_(pa.float64()))], metadata=facts)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def _cells(row: Prediction, truth: Truth, columns: Sequence[str]) -> Cells:
    """Return a row's cells by column, and its probabilities last; None where there is no value."""
    used = row.label is not None
    names = [utf8_safe(name) for name in truth]
    values: dict[str, Any] = {
        "file": utf8_safe(row.file),
        "true_class": names[0] if names else None,
        "true_classes": names,
        "label": None if row.label is None else utf8_safe(row.label),
        "labels": [utf8_safe(name) for name in row.labels] if used else None,
        "probability": row.probability if used else None,
        "abstain": row.abstain if used else None,
        "distance": row.distance if row.distance == row.distance else None,
        "problem": None if row.problem is None else utf8_safe(row.problem),
    }
    return {**{name: values[name] for name in columns}, "probabilities": list(row.probabilities) or None}


def _rounded(cells: Cells, decimals: int | None) -> Cells:
    """Return the cells with all numbers rounded, also those in lists."""
    if decimals is None:
        return cells
    each = {name: round(cell, decimals) if isinstance(cell, float) else cell for name, cell in cells.items()}
    probabilities = cells["probabilities"]
    return {**each, "probabilities": probabilities and [round(value, decimals) for value in probabilities]}


def _csv_cell(cell: str | float | bool | list[str] | None) -> str | float | None:
    if isinstance(cell, list):
        return "|".join(cell)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return cell
