"""`TabularSource`: what table, SQL and API sources share, whose rows have columns for image, label, group and split."""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from visionadapt.core.naming import natural_key, stable_hash
from visionadapt.core.records import Record
from visionadapt.core.spec import suggestion
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import check_size, flag, mapping, several, text
from visionadapt.sources.base import BaseSource
from visionadapt.sources.split_names import SPLIT_NAMES, flagged_split, split_named
from visionadapt.sources.tables.cells import NO_MARK, composed_label, labels_in, marked, missing_value, shared_part
from visionadapt.sources.tables.guessing import guessed_columns
from visionadapt.sources.tables.repeats import Claim, Repeats
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.walk import Found

_ARGUMENTS = """label: the column with the label; None for unlabelled images. A list of columns: each is a class, with 1
            for its images and 0 or nothing for others.
        labels: other names for labels, such as `{"T-Shirt": "t-shirt"}`; labels not mentioned keep theirs.
        drop: labels, as the table has them, whose rows are not used.
        group: the column with the group; rows of one group are never divided between training and validation.
        split: the column with train, val (validation, valid) or test, in any case; or a column called `is_valid`,
            `is_test` or alike, with true and false or 1 and 0.
        separator: what separates several labels in one cell, also in one such as `["cat", "dog"]`; a cell that is a
            list needs none.
        merge: whether rows that name the same image are one, with all of their labels. Otherwise the first one counts,
            and none where their labels differ."""


_MOST_NAMED = 60


class TabularSource(BaseSource):
    """Base of sources whose rows have columns: reads label, group and split, and gives each row a key of its own.

    A dropped row has no say in the label of a file that several rows name. Labels are in Unicode NFC, without
    surrounding white space; an empty cell is no label, no group, no split.

    Subclasses are frozen dataclasses that declare the fields below. `{columns}` in their docstrings stands for the
    description of the shared ones.
    """

    image: str
    label: str | Sequence[str] | None
    labels: Mapping[str, str]
    drop: Sequence[str]
    group: str | None
    split: str | None
    separator: str | None
    merge: bool
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

    def _image_columns(self) -> Sequence[str]:
        """The columns that hold images themselves."""
        return ()

    def _first_rows(self) -> Iterable[TableRow]:
        """Some of the rows, to guess from."""
        return ()

    def _with(self, options: Mapping[str, Any]) -> str:
        """How to give options that name columns, as a user writes them."""
        return ", ".join(f"{name}={value!r}" for name, value in options.items())

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

    def notes(self) -> Sequence[str]:
        """Return what to know about the labels, in lines of text."""
        names = self._facts.names if isinstance(self.label, str) and self.separator is None else ()
        listed, meant = sorted(names, key=natural_key), {*self.labels, *self.drop}
        return tuple(told for told in (shared_part(listed, meant), missing_value(listed, meant)) if told is not None)

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
            label=several(self.label) if isinstance(self.label, (list, tuple)) else text(self.label),
            labels={_clean(old): _clean(new) for old, new in labels.items()},
            drop=tuple(map(_clean, several(self.drop))),
            merge=flag("merge", self.merge),
            **{name: text(getattr(self, name)) for name in ("image", "group", "split", "separator")},
        )
        if self.label == ():
            raise SourceError("label= must name a column, or several that are one class each")

    def _check_columns(self, title: str, known: Sequence[str]) -> None:
        """Raise SourceError where a column that an argument names is not among those known, or is there twice."""
        images = self._image_columns()
        if not self.image:
            raise SourceError(f"{title}: image= must name a column {self._told(known)}{self._advice(known)}")
        for option in self._column_options:
            for name in several(getattr(self, option)):
                there = known.count(name) or (option == "image" and name in images)
                if there != 1:
                    what = "has two columns" if there else "has no column"
                    close = suggestion(name, {*known, *images} - {name})
                    told = f"{title} {what} {name!r}, which {option}= names{close} {self._told(known)}"
                    raise SourceError(told + ("" if there else self._advice(known)))

    @property
    def columns_told(self) -> str:
        """The names of the columns, for a message."""
        return self._told(self._known_columns())

    def _told(self, known: Sequence[str]) -> str:
        names = [name or "(unnamed)" for name in dict.fromkeys([*known, *self._image_columns()])]
        more = f", … ({len(names):,})" if len(names) > _MOST_NAMED else ""
        return f"(columns: {', '.join(names[:_MOST_NAMED]) or 'none'}{more})"

    def _guessed(self, known: Sequence[str]) -> dict[str, Any]:
        """The options that probably name the right columns."""
        return guessed_columns(known, self._first_rows(), self._image_columns())

    def _advice(self, known: Sequence[str]) -> str:
        """How the columns that are there may be named; empty where that cannot be guessed."""
        options = self._guessed(known)
        return f"; give {self._with(options)}" if "label" in options or (options and self.label is None) else ""

    @property
    def example(self) -> str:
        """The settings that probably name the right columns, as a user writes them; `…` for those not guessed."""
        return self._with({"image": "…", "label": "…", **self._guessed(self._known_columns())})

    @property
    def label_advice(self) -> str | None:
        """How to name the column of labels, where none is named; None where one is, or cannot be guessed."""
        options = {} if self.label is not None else self._guessed(self._known_columns())
        return f"give {self._with({**options, 'image': self.image})}" if "label" in options else None

    @cached_property
    def _facts(self) -> _Facts:
        """Read the complete table once; twice where several rows name one file."""
        self._check_columns(self._title, self._known_columns())
        places: dict[str, str] = {}
        tested: set[str] = set()
        classes: set[str] = set()
        denials: set[str] = set()
        hashes = array("Q")
        for key, row, _ in self._rows(look=False):
            if isinstance(self.label, tuple) and "0" not in denials:
                denials |= self._denials(row)
            names, problem = self._names(row)
            for name in names:
                places.setdefault(name, row.place)
            (tested if self._split_of(row) == "test" else classes).update(self._used(names, problem)[0])
            hashes.append(stable_hash(key))
        if isinstance(self.label, tuple):
            if denials == {"-1"}:  # only rows of every class would be left
                raise SourceError(f"{self._title}: the columns of label= say no by -1; write 0 instead")
            places = dict.fromkeys(map(_clean, self.label), "")
            classes = {self.labels.get(name, name) for name in places if name not in self.drop}
        elif self.separator is None:
            composed = composed_label(places, {*self.labels, *self.drop})
            if composed is not None:
                raise SourceError(f"{self._title}, {composed}")
        repeats = Repeats.of(hashes, self._claims, self.merge)
        return _Facts(len(hashes) - repeats.merged, frozenset(places), frozenset(classes or tested), repeats)

    def _claims(self) -> Iterator[Claim]:
        for key, row, _ in self._rows(look=False):
            labels, problem = self._labels_of(row)
            yield Claim(key, row.place, labels if problem is None else None, row.only(self.group), self._split_of(row))

    def _records(self, repeats: Repeats) -> Iterator[Record]:
        copies: Counter[int] = Counter()
        for key, row, found in self._rows(look=True):
            labels, unused = self._labels_of(row)
            if unused is None and repeats.is_merged(key, row.place):
                continue
            own, repeated = repeats.own_key(key, row.place, copies)
            if row.problem is not None:
                yield Record(own, problem=f"{row.problem} ({row.place})")
                continue
            problem = found.problem or unused
            assigned = {self.image, *several(self.label), self.group, self.split, ""}
            yield Record(
                own,
                labels if unused else repeats.labels(key, labels),
                group=row.only(self.group),
                split=self._split_of(row),
                location=None if found.problem else found.location_for(own),
                problem=repeated if problem is None else f"{problem} ({row.place})",
                columns={name: "; ".join(cell) for name, cell in row.cells.items() if cell and name not in assigned},
            )

    def _names(self, row: TableRow) -> tuple[list[str], str | None]:
        """The row's labels as the table has them, and why they cannot be read."""
        if isinstance(self.label, tuple):
            return self._marked(row)
        cells = row.cells.get(self.label, ()) if isinstance(self.label, str) else ()
        parts = [part for cell in cells for part in labels_in(cell, self.separator)]
        return [name for name in map(_clean, parts) if name], None

    def _marked(self, row: TableRow) -> tuple[list[str], str | None]:
        """The columns of `label` that hold 1."""
        names = []
        for column in several(self.label):
            cell = "; ".join(row.cells.get(column, ())).strip()
            mark = marked(cell) if cell else False
            if mark is None:
                return [], f"{column!r} holds {cell!r:.40}, {NO_MARK}"
            names.extend([_clean(column)] if mark else [])
        return names, None

    def _denials(self, row: TableRow) -> set[str]:
        """How the columns of `label` say no in a row: `0`, which stands for an empty cell and `false` too, or `-1`."""
        cells = ["; ".join(row.cells.get(column, ())).strip() for column in several(self.label)]
        minus = {"-1", "-1.0"}
        return {"-1" if cell in minus else "0" for cell in cells if cell in minus or not cell or marked(cell) is False}

    def _labels_of(self, row: TableRow) -> tuple[tuple[str, ...], str | None]:
        """The row's labels by their new names; where they are not used, none, and why."""
        return self._used(*self._names(row))

    def _used(self, names: Sequence[str], problem: str | None) -> tuple[tuple[str, ...], str | None]:
        dropped = next((name for name in names if name in self.drop), None)
        if problem is not None or dropped is not None:
            return (), problem or f"dropped: its label is {dropped!r}"
        return tuple(dict.fromkeys(self.labels.get(name, name) for name in names)), None

    def _split_of(self, row: TableRow) -> str | None:
        """`train`, `val` or `test`; None where the cell is empty; raise SourceError for anything else."""
        name = row.only(self.split)
        if name is None or self.split is None:
            return None
        split = SPLIT_NAMES.get(name.casefold())
        if split is not None:
            return split
        where, flagged = f"{self._title}, {row.place}: {self.split!r} is", marked(name)
        return split_named(name, where) if flagged is None else flagged_split(self.split, flagged, f"{where} {name!r}")


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
