"""`TabularSource`: what table, SQL and API sources share, whose rows have columns for image, label, group and split."""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from visionadapt.core.naming import natural_key, stable_hash
from visionadapt.core.records import Record
from visionadapt.core.spec import suggestion
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import check_size, mapping, several, text
from visionadapt.sources.base import BaseSource
from visionadapt.sources.split_names import split_named
from visionadapt.sources.tables.readers import TableRow
from visionadapt.sources.tables.repeats import Claim, Repeats
from visionadapt.sources.walk import Found

_ARGUMENTS = """label: the column with the label; None for unlabelled images.
        labels: other names for labels, such as `{"T-Shirt": "t-shirt"}`; labels not mentioned keep theirs.
        drop: labels, as the table has them, whose rows are not used.
        group: the column with the group; rows of one group are never divided between training and validation.
        split: the column with train, val (validation, valid) or test, in any case.
        separator: what separates several labels in one cell; a cell that is a list needs none."""


class TabularSource(BaseSource):
    """Base of sources whose rows have columns: reads label, group and split, and gives each row a key of its own.

    A dropped row has no say in the label of a file that several rows name. Labels are in Unicode NFC, without
    surrounding white space; an empty cell is no label, no group, no split.

    Subclasses are frozen dataclasses that declare the fields below. `{columns}` in their docstrings stands for the
    description of the shared ones.
    """

    image: str
    label: str | None
    labels: Mapping[str, str]
    drop: Sequence[str]
    group: str | None
    split: str | None
    separator: str | None
    max_bytes: int

    _column_options: ClassVar[tuple[str, ...]] = ("image", "label", "group", "split")
    """The arguments that name columns."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__doc__ = (cls.__doc__ or "").replace("{columns}", _ARGUMENTS)

    @property
    @abstractmethod
    def _title(self) -> str:
        """What messages call the table."""

    @abstractmethod
    def _known_columns(self) -> Sequence[str]:
        """The names of all columns."""

    @abstractmethod
    def _rows(self, look: bool) -> Iterator[tuple[str, TableRow, Found]]:
        """Yield each row with its key and where its image is; only if asked to `look`, with a look at the files."""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that are not dropped, in natural order; those of test rows only count where there are no others.

        Raises:
            SourceError: the rows cannot be read, or none has a label that `labels` or `drop` names.
        """
        known = self._facts.names
        for option, names in (("labels", self.labels), ("drop", self.drop)):
            for name in names:
                if name not in known:
                    listed = ", ".join(sorted(known, key=natural_key)) or "none"
                    raise SourceError(
                        f"{self._title}: no row has the label {name!r} that {option}= names"
                        f"{suggestion(name, known)} (labels: {listed})"
                    )
        return tuple(sorted(self._facts.classes, key=natural_key))

    def __iter__(self) -> Iterator[Record]:
        return self._records(self._facts.repeats)

    def __len__(self) -> int:
        return self._facts.rows

    def _normalize_columns(self) -> None:
        """Normalise the shared arguments; raise SourceError where one is invalid."""
        labels = mapping("labels", self.labels)
        emptied = next((old for old, new in labels.items() if not _clean(new)), None)
        if emptied is not None:
            raise SourceError(f"labels= gives {emptied!r} an empty name; leave its rows out by drop=[{emptied}]")
        check_size("max_bytes", self.max_bytes)
        if self.separator == "":
            raise SourceError("separator= must be a character or more, such as '|'")
        self._set(
            labels={_clean(old): _clean(new) for old, new in labels.items()},
            drop=tuple(map(_clean, several(self.drop))),
            **{name: text(getattr(self, name)) for name in ("image", "label", "group", "split", "separator")},
        )

    def _check_columns(self, title: str, known: Sequence[str]) -> None:
        """Raise SourceError where a column that an argument names is not among those known, or is there twice."""
        columns = f"(columns: {', '.join(known) or 'none'})"
        if self.image is None:
            raise SourceError(f"{title}: image= must name a column {columns}")
        for option in self._column_options:
            for name in several(getattr(self, option)):
                if known.count(name) != 1:
                    what = "has two columns" if name in known else "has no column"
                    close = suggestion(name, set(known) - {name})
                    raise SourceError(f"{title} {what} {name!r}, which {option}= names{close} {columns}")

    @cached_property
    def _facts(self) -> _Facts:
        """Read the complete table once; twice where several rows name one file."""
        self._check_columns(self._title, self._known_columns())
        names: set[str] = set()
        tested: set[str] = set()
        classes: set[str] = set()
        hashes = array("Q")
        for key, row, _ in self._rows(look=False):
            names.update(self._names(row))
            (tested if self._split_of(row) == "test" else classes).update(self._labels_of(row)[0])
            hashes.append(stable_hash(key))
        return _Facts(len(hashes), frozenset(names), frozenset(classes or tested), Repeats.of(hashes, self._claims))

    def _claims(self) -> Iterator[Claim]:
        for key, row, _ in self._rows(look=False):
            labels, dropped = self._labels_of(row)
            yield key, row.place, None if dropped else frozenset(labels)

    def _records(self, repeats: Repeats) -> Iterator[Record]:
        copies: Counter[int] = Counter()
        for key, row, found in self._rows(look=True):
            own, repeated = repeats.own_key(key, row.place, copies)
            if row.problem is not None:
                yield Record(own, problem=f"{row.problem} ({row.place})")
                continue
            labels, dropped = self._labels_of(row)
            problem = found.problem or (f"dropped: its label is {dropped!r}" if dropped is not None else None)
            assigned = {self.image, self.label, self.group, self.split, ""}
            yield Record(
                own,
                labels,
                group=row.only(self.group),
                split=self._split_of(row),
                location=None if found.problem else found.location_for(own),
                problem=repeated if problem is None else f"{problem} ({row.place})",
                columns={name: "; ".join(cell) for name, cell in row.cells.items() if cell and name not in assigned},
            )

    def _names(self, row: TableRow) -> list[str]:
        """The row's labels as the table has them."""
        cells = row.cells.get(self.label, ()) if self.label is not None else ()
        parts = [part for cell in cells for part in (cell.split(self.separator) if self.separator else (cell,))]
        return [name for name in map(_clean, parts) if name]

    def _labels_of(self, row: TableRow) -> tuple[tuple[str, ...], str | None]:
        """The row's labels by their new names; where one of them is dropped, none, and the name of that one."""
        names = self._names(row)
        dropped = next((name for name in names if name in self.drop), None)
        if dropped is not None:
            return (), dropped
        return tuple(dict.fromkeys(self.labels.get(name, name) for name in names)), None

    def _split_of(self, row: TableRow) -> str | None:
        """`train`, `val` or `test`; None where the cell is empty; raise SourceError for anything else."""
        name = row.only(self.split)
        return None if name is None else split_named(name, f"{self._title}, {row.place}: {self.split!r} is")


@dataclass(frozen=True)
class _Facts:
    """What one pass over a table finds: number of rows, labels as they are, classes, and repeated files."""

    rows: int
    names: frozenset[str]
    classes: frozenset[str]
    repeats: Repeats


def _clean(name: Any) -> str:
    """A label as it is compared: in Unicode NFC, without surrounding white space."""
    return unicodedata.normalize("NFC", str(name).strip())
