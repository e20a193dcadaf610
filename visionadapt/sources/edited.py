"""Apply what a person has decided in the `findings.csv` of an audit: rows to drop, and rows with another label."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from visionadapt.core.records import Manifest, Record, Source
from visionadapt.core.spec import suggestion
from visionadapt.errors import UsageError
from visionadapt.sources.opening import RowsLike, manifest_of
from visionadapt.system.csv_text import safe_cell
from visionadapt.system.text import counted

ACTIONS = ("", "keep", "drop", "relabel")
"""What the column `action` may say of the row that `file` names; an empty cell decides nothing, like `keep`."""

_LARGEST = 1 << 28


@dataclass(frozen=True)
class Edits:
    """Decisions about rows, by the row's key as it is written in a CSV file.

    Attributes:
        path: the file.
        digest: SHA-256 of its bytes.
        dropped: keys of the rows to reject.
        relabelled: new label of the rows that get another, or labels with a semicolon between them.
    """

    path: Path
    digest: str
    dropped: frozenset[str]
    relabelled: Mapping[str, str]

    @classmethod
    def read(cls, path: str | Path) -> Edits:
        """Read a table with the columns `file` and `action`, and `label` for rows to relabel; others are ignored.

        Raises:
            UsageError: the file cannot be read, or a line has an unknown action or contradicts an earlier one.
        """
        path = Path(path)
        data = _bytes(path)
        chosen: dict[str, str | None] = {}
        for line, row in _lines(path, data):
            action, key = row["action"].strip().lower(), row["file"]
            if action not in ACTIONS:
                known = ", ".join(ACTIONS[1:])
                raise UsageError(f"{path}, line {line}: action {action!r:.40} is unknown; give {known} or nothing")
            if action not in {"drop", "relabel"}:
                continue
            label = _label(path, line, row) if action == "relabel" else None
            if chosen.setdefault(key, label) != label:
                raise UsageError(f"{path}, line {line}: {key!r:.200} has another action on a line before; keep one")
        dropped = frozenset(key for key, label in chosen.items() if label is None)
        relabelled = {key: label for key, label in chosen.items() if label is not None}
        return cls(path, hashlib.sha256(data).hexdigest(), dropped, relabelled)

    def apply(self, rows: RowsLike) -> tuple[Manifest, str]:
        """Return the rows with the decisions, and one line that says what they did.

        Dropped rows are rejected, with the reason `dropped by` the file, and keep their place. The line also tells
        how many keys no row has.

        Raises:
            UsageError: a row is to get a label that is no class.
        """
        manifest = manifest_of(rows)
        written = {safe_cell(name): name for name in manifest.classes} | {name: name for name in manifest.classes}
        labels = {key: tuple(self._classes(key, label, written)) for key, label in self.relabelled.items()}
        found: set[str] = set()
        same: set[str] = set()
        edited = Manifest(manifest.source, self._records(manifest, labels, found, same), manifest.classes)
        return edited, self._told(found, same)

    def _classes(self, key: str, text: str, written: Mapping[str, str]) -> Iterator[str]:
        """Yield the classes in a cell, by the names that they are written with."""
        for label in [text] if text in written else [part.strip() for part in text.split(";") if part.strip()]:
            if label not in written:
                hint = suggestion(label, written)
                raise UsageError(f"{self.path}: {key!r:.200} is to be {label!r:.100}, which is no class{hint}")
            yield written[label]

    def _records(
        self, manifest: Manifest, labels: Mapping[str, tuple[str, ...]], found: set[str], same: set[str]
    ) -> Iterator[Record]:
        for record in manifest:
            key = record.key if record.key in self.dropped or record.key in labels else safe_cell(record.key)
            if key in self.dropped:
                found.add(key)
                yield replace(record, labels=(), problem=f"dropped by {self.path.name}")
            elif key in labels:
                found.add(key)
                if set(record.labels) == set(labels[key]):
                    same.add(key)
                yield replace(record, labels=labels[key])
            else:
                yield record

    def _told(self, found: set[str], same: set[str]) -> str:
        lost = sorted({*self.dropped, *self.relabelled} - found)
        dropped = len(self.dropped & found)
        rows = f"{dropped:,} row{'' if dropped == 1 else 's'}"
        line = f"{self.path.name}: {rows} dropped, {len(found - self.dropped):,} relabelled"
        if same:
            line += f" ({len(same):,} of them to the label that they have already, such as {min(same)!r:.200})"
        if lost:
            match = "matches" if len(lost) == 1 else "match"
            line += f"; {counted(len(lost), 'entry', 'entries')} {match} no image, such as {lost[0]!r:.200}"
        return line


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(f"--exclude {path} is no file; give the findings.csv that an audit wrote")
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"--exclude {path} has more than {_LARGEST:,} bytes; give a table of findings")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--exclude {path} cannot be read ({error.strerror})") from error


def _lines(path: Path, data: bytes) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the number and the cells of each line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start}); save it as CSV UTF-8") from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names: Sequence[str] = [name.strip() for name in next(table, [])]
        missing = [name for name in ("file", "action") if name not in names]
        if missing:
            raise UsageError(f"{path} has no column {' and no column '.join(missing)}; its first line must name them")
        for cells in table:
            yield table.line_num, {"label": "", **dict.fromkeys(names, ""), **dict(zip(names, cells, strict=False))}
    except csv.Error as error:
        raise UsageError(f"{path}, line {table.line_num}: {error}") from error


def _label(path: Path, line: int, row: Mapping[str, str]) -> str:
    label = row["label"].strip()
    if not label:
        raise UsageError(f"{path}, line {line}: relabel needs the new class in the column label")
    return label


def edited(path: Path) -> bool:
    """Whether a file is a table in which some action is filled in."""
    try:
        return path.is_file() and any(row["action"].strip() for _, row in _lines(path, _bytes(path)))
    except UsageError:
        return False


def edited_rows(source: Source, path: str | None, say: Callable[[str], None]) -> Source | Manifest:
    """Return the rows of a source as the file of `--exclude` decides, and `say` what it did; without one, the source.

    Raises:
        UsageError: as `Edits.read` and `Edits.apply`.
    """
    if path is None:
        return source
    rows, told = Edits.read(path).apply(source)
    say(told)
    return rows
