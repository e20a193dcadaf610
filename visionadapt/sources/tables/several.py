"""Tables in several files: which files, and those of Parquet and Arrow, as the Hugging Face Hub has them."""

from __future__ import annotations

import dataclasses
import glob
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from visionadapt.core.naming import listed, natural_key
from visionadapt.errors import SourceError
from visionadapt.sources.braces import expanded
from visionadapt.sources.split_names import split_called
from visionadapt.sources.tables.arrow import ArrowFile, arrow_columns
from visionadapt.sources.tables.row import TableRow

SPLIT = "split"
"""The column that each row gets from the name of its file or folder, unless the files have one of this name."""
FILE_SUFFIXES = {"parquet": (".parquet",), "arrow": (".arrow", ".feather", ".ipc")}
"""How the files of a table in several files end."""
_CACHES = "cache-"
"""What the `datasets` library calls files that it leaves beside those of the data."""


def names_several(text: str) -> bool:
    """Whether a text names a folder of tables, or is a pattern."""
    return os.path.isdir(text) or (not os.path.lexists(text) and (glob.has_magic(text) or "{" in text))  # noqa: PTH112


def folder_of(text: str) -> Path:
    """Return a folder itself, or the one of a file or pattern, above what the pattern leaves open."""
    folder = Path(text)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder if folder.is_dir() else Path(text).parent


def splits_of(paths: Sequence[str]) -> set[str]:
    """Return the splits that the names of some files tell."""
    return {split for split in map(split_of, map(Path, paths)) if split is not None}


def table_files(text: str, kind: str) -> list[str]:
    """Return the files of a kind that a folder or pattern names, in natural order.

    Of a folder those in it, or where it has none those in its folders, such as `train` and `test`, or in theirs.
    """
    suffixes = FILE_SUFFIXES.get(kind, ())
    if not os.path.isdir(text):  # noqa: PTH112 - a Path refuses some texts
        found = [path for name in expanded(text) for path in (glob.glob(name) if glob.has_magic(name) else [name])]  # noqa: PTH207
        return sorted(found, key=natural_key)
    for pattern in ("*", "*/*", "*/*/*"):
        paths = glob.glob(os.path.join(glob.escape(text), pattern))  # noqa: PTH118, PTH207
        named = [path for path in paths if path.lower().endswith(suffixes) and os.path.isfile(path)]  # noqa: PTH113
        found = [path for path in named if not Path(path).name.startswith(_CACHES)]
        if found:
            return sorted(found, key=natural_key)
    return []


def files_of(texts: Sequence[str], kind: str) -> list[str]:
    """Return the files of a kind that some texts name, each once: files themselves, folders and patterns."""
    found = (table_files(text, kind) if names_several(text) else [text] for text in texts)
    return list(dict.fromkeys(file for files in found for file in files))


def check_one_set(text: str, names: Sequence[str]) -> None:
    """Raise SourceError where the files below a folder lie in several folders that are no splits.

    On the Hugging Face hub these are other selections of the same rows. `names` are paths below the folder `text`.
    """
    sets = {"/".join(part for part in name.split("/")[:-1] if split_called(part) is None) for name in names}
    if len(sets) > 1:
        folders = listed(sets - {""})
        raise SourceError(
            f"{text} holds tables in several folders ({folders}), which may have the same images: name one of them, or "
            "for all a pattern of files, such as '*/*.parquet'"
        )


@dataclass(frozen=True)
class ArrowFiles:
    """Several files of one schema, as one table; the numbers of rows go on from file to file."""

    files: Sequence[ArrowFile]

    @cached_property
    def schema(self) -> Any:
        """The schema of all files; a column that has no values in some of them has the type of the others.

        Raises:
            SourceError: they have different ones.
        """
        from pyarrow import ArrowException, unify_schemas

        first = self.files[0].schema
        for file in self.files[1:]:
            if file.schema.equals(first):
                continue
            try:
                alike = sorted(file.schema.names) == sorted(first.names)
                first = unify_schemas([first, file.schema]) if alike else None
            except ArrowException:
                first = None
            if first is None:
                raise SourceError(
                    f"{file.path} has other columns than {self.files[0].path} "
                    f"({_difference(self.files[0].schema, file.schema)}); "
                    "give one table of each kind"
                )
        return first

    def rows(self, names: Sequence[str], named: bool = True) -> Iterator[TableRow]:
        """Yield the rows of all files, with the cells of some columns; `SPLIT` is that of the file."""
        above = os.path.commonpath([file.path.parent for file in self.files])
        for file in self.files:
            place = file.path.relative_to(above).as_posix()
            split = split_of(file.path)
            known = set(arrow_columns(file.schema))
            own = [name for name in names if name in known]
            extra = {SPLIT: (split,)} if split is not None and SPLIT in names and SPLIT not in own else {}
            for row in file.rows(own, named):
                yield dataclasses.replace(row, place=f"{place}, {row.place}", cells={**row.cells, **extra})

    def batches(self, names: Sequence[str], row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Yield batches from a row on, as `arrow.Batches` says."""
        from pyarrow import types

        for number in range(min(bisect_right(self._before, row - 1) - 1, len(self.files) - 1), len(self.files)):
            before = self._before[number]
            file = self.files[number]
            empty = [each.name for each in file.schema if types.is_null(each.type)]
            whole = [next((each for each in empty if name.startswith(f"{each}.")), name) for name in names]
            for first, batch in file.batches(whole, max(row - before, 1), size):
                yield before + first, self._typed(batch)

    def _typed(self, batch: Any) -> Any:
        """The batch, whose columns without a type have that of the other files."""
        from pyarrow import schema, types

        own = [self.schema.field(each.name) if types.is_null(each.type) else each for each in batch.schema]
        return batch.cast(schema(own)) if own != list(batch.schema) else batch

    @cached_property
    def _before(self) -> list[int]:
        """How many rows come before each file."""
        return [0, *accumulate(file.row_count for file in self.files[:-1])]


def _difference(first: Any, other: Any) -> str:
    """Tell a column by which two schemas differ."""
    for name in dict.fromkeys([*first.names, *other.names]):
        types = [
            " and ".join(str(schema.field(i).type) for i in schema.get_all_field_indices(name))
            for schema in (first, other)
        ]
        if types[0] != types[1]:
            return f"{name!r} is {types[1] or 'missing'}, not {types[0] or 'missing'}"
    return "in another order"


def split_of(path: Path) -> str | None:
    """Return train, val or test where a file or its folder is called so, such as `train-00000-of-00002.parquet`."""
    for name in (path.name.partition("-")[0].partition(".")[0], path.parent.name):
        split = split_called(name)
        if split is not None:
            return split
    return None
