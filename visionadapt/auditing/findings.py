"""What an audit has found: one `AuditFinding` each, of a known kind, and the tables that they are written as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from visionadapt.system.csv_text import table_text
from visionadapt.system.storage import replacing, write_text
from visionadapt.system.text import utf8_safe

Severity = Literal["error", "warning", "note"]
COLUMNS = ("kind", "severity", "file", "other_file", "label", "detail", "score")


@dataclass(frozen=True)
class Kind:
    """A kind of finding: how grave it is, its heading, and what it means and what can be done."""

    severity: Severity
    title: str
    meaning: str


KINDS: dict[str, Kind] = {
    "leak": Kind(
        "error",
        "The same picture on two sides",
        "What is measured on such a picture was learned by heart. Remove one of the two, or give both one group.",
    ),
    "conflict": Kind(
        "error",
        "The same picture with different labels",
        "One of the two labels is wrong, or the classes overlap. Correct it, or remove both.",
    ),
    "missing": Kind("warning", "Files that are not there", "Rows that name a file that does not exist."),
    "empty": Kind("warning", "Empty files", "Files of no bytes, mostly of a copy that was interrupted."),
    "unreadable": Kind("warning", "Files that cannot be read", "They are left out of training; the reason is told."),
    "blank": Kind("warning", "Pictures of one colour", "Nothing can be seen on them."),
    "label_error": Kind(
        "warning",
        "Labels that are probably wrong",
        "A linear probe that saw neither the picture nor a copy of it holds the label for improbable. Least probable "
        "first; look at each before you change it.",
    ),
    "across_groups": Kind(
        "warning",
        "The same picture in two groups",
        "A division by group keeps groups apart, not such pictures. Correct the group of one, or remove one.",
    ),
    "few_pictures": Kind("warning", "Classes with few pictures", "Too few to learn a class from, or to measure it."),
    "exact_duplicate": Kind(
        "note", "Exact copies", "Files that are equal byte by byte; in one part they only weigh double."
    ),
    "same_pixels": Kind("note", "Copies in other files", "Other bytes (format, metadata), and the very same pixels."),
    "near_duplicate": Kind(
        "note",
        "Nearly the same picture",
        "Saved anew, resized, brightened or slightly cropped; or two photographs that one can hardly tell apart.",
    ),
    "imbalance": Kind("note", "Classes of very different sizes", "Think of --class-weights balanced."),
    "small": Kind("note", "Small pictures", "They are enlarged to more than twice their size before the backbone."),
    "elongated": Kind("note", "Very long pictures", "Much of them is cut away, stretched or filled up."),
    "rare_mode": Kind(
        "note", "Pictures of a rare kind", "They look different to a model where their kind goes with a class."
    ),
    "wrong_extension": Kind(
        "note", "Names that do not fit the content", "Read by their content; other programs may not."
    ),
    "repaired": Kind(
        "note", "Pictures that a naive reader gets wrong", "Read as they are meant; what was done is told."
    ),
    "refused": Kind("note", "Rows that the source leaves out", "Dropped, repeated or broken rows; the reason is told."),
    "unlisted": Kind("note", "Files that no row names", "Pictures below the folder that are used by nothing."),
    "only_here": Kind("note", "Rows that the other source lacks", "No file of the other source has their bytes."),
}
"""Every kind, in the order in which a person should look at them."""

GRAVE = ("leak", "conflict")
"""Kinds for which `--strict` fails."""


@dataclass(frozen=True)
class AuditFinding:
    """One thing that an audit has found.

    Attributes:
        kind: a key of `KINDS`.
        file: the key of the row, or the name of the class, that it is about.
        other: the key of the second picture, where there is one.
        label: what the row is labelled as.
        detail: one line: what was seen.
        score: how sure it is or how much it matters, the higher the more; None where there is no degree.
        index, other_index: places of the rows in the audited manifest; −1 where there is none.
    """

    kind: str
    file: str
    other: str = ""
    label: str = ""
    detail: str = ""
    score: float | None = None
    index: int = -1
    other_index: int = -1

    @property
    def severity(self) -> Severity:
        """How grave it is: error, warning or note."""
        return KINDS[self.kind].severity


def in_order(findings: Iterable[AuditFinding]) -> tuple[AuditFinding, ...]:
    """The findings by kind, in each kind the highest score first, those of one score as they came."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda finding: (rank[finding.kind], -(finding.score or 0.0))))


def write_tables(folder: Path, findings: Sequence[AuditFinding]) -> None:
    """Write `findings.parquet` and `findings.csv`.

    Raises:
        RunError: a file cannot be written.
    """
    from pyarrow import Table, float64, schema, string
    from pyarrow.parquet import write_table

    rows = [_cells(finding) for finding in findings]
    types = schema([(name, float64() if name == "score" else string()) for name in COLUMNS])
    columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
    with replacing(folder / "findings.parquet") as file:
        write_table(Table.from_pydict(columns, schema=types), file, compression="zstd")
    lines = ([*row[:-1], "" if row[-1] is None else round(row[-1], 4)] for row in rows)
    write_text(folder / "findings.csv", table_text(COLUMNS, lines))


def _cells(finding: AuditFinding) -> tuple[str, str, str, str, str, str, float | None]:
    texts = (finding.kind, finding.severity, finding.file, finding.other, finding.label, finding.detail)
    kind, severity, file, other, label, detail = (utf8_safe(text) for text in texts)
    return kind, severity, file, other, label, detail, finding.score
