"""Tables in several CSV, TSV, JSON or JSON Lines files, such as a `metadata.csv` in each of `train` and `test`."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from visionadapt.core.naming import listed
from visionadapt.errors import SourceError
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.tables.several import SPLIT, split_of


class TextTable(Protocol):
    """One of the files."""

    @property
    def path(self) -> Path: ...
    def columns(self, named: Sequence[str] = ()) -> tuple[str, ...]: ...
    def rows(self, named: Sequence[str] = ()) -> Iterator[TableRow]: ...


@dataclass(frozen=True)
class TextFiles:
    """Several files with the same columns, in any order, as one table.

    Attributes:
        files: the files, at least one.
        above: the folder that holds them all; places of rows begin with the path of their file below it.
        sparse: whether a row may lack columns, as in JSON: then files must have the columns that are asked for.
    """

    files: Sequence[TextTable]
    above: Path
    sparse: bool = False

    def columns(self, named: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the names of the columns, and `SPLIT` where the name of a file or its folder tells one.

        Raises:
            SourceError: a file cannot be read, or lacks a column that another one has.
        """
        columns = [file.columns(named) for file in self.files]
        self._check_same(columns, named)
        more = (name for each in columns[1:] for name in (Counter(each) - Counter(columns[0])).elements())
        every = (*columns[0], *dict.fromkeys(more))
        told = any(split_of(file.path) is not None for file in self.files)
        return (*every, SPLIT) if told and SPLIT not in every else every

    def rows(self, named: Sequence[str] = ()) -> Iterator[TableRow]:
        """Yield the rows of all files, each with its file's name in its place, the file's folder and its split."""
        for file in self.files:
            folder = folder_below(file.path, self.above)
            place = f"{folder}/{file.path.name}" if folder else file.path.name
            split = split_of(file.path)
            told = {} if split is None else {SPLIT: (split,)}
            for row in file.rows(named):
                cells = {**told, **row.cells} if told else row.cells
                yield dataclasses.replace(row, place=f"{place}, {row.place}", cells=cells, folder=folder)

    def _check_same(self, columns: Sequence[tuple[str, ...]], named: Sequence[str]) -> None:
        """Raise SourceError where a file lacks a column of the first one, or the first one lacks one of its columns."""
        asked = {name for name in named if any(name in each for each in columns)}
        empty = self.sparse and any(columns)  # in JSON, a file without a row has no column either
        first, known = self.files[0], {*columns[0]}
        for file, names in zip(self.files, columns, strict=True):
            for lacking, own, wanted in ((file, {*names}, known), (first, known, {*names})):
                if empty and not own:
                    continue
                missing = sorted((asked if self.sparse else wanted) - own)
                if missing:
                    other = next(each.path for each, its in zip(self.files, columns, strict=True) if missing[0] in its)
                    raise SourceError(
                        f"{lacking.path} has no column {missing[0]!r}, which {other} has (columns: "
                        f"{listed(name or '(unnamed)' for name in own)}); give files of the same columns"
                    )


def folder_below(path: Path, above: Path) -> str:
    """Return the folder of a file as a POSIX path below another one, or empty for that itself."""
    below = os.path.relpath(os.path.dirname(os.path.abspath(path)), os.path.abspath(above))  # noqa: PTH100, PTH120
    return "" if below == "." else below.replace(os.sep, "/")
