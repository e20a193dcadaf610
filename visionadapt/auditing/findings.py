"""Findings of an audit, each of a known kind, and the tables that list them."""

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
ACTION = "action"
"""Column of findings.csv that is left empty for the user's decision; see `visionadapt.sources.edited`."""


@dataclass(frozen=True)
class FindingKind:
    """A kind of finding: its severity, its title, and what it means and what can be done.

    `thumbnails`: whether the page shows the images of its findings.
    """

    severity: Severity
    title: str
    meaning: str
    thumbnails: bool = True


KINDS: dict[str, FindingKind] = {
    "leak": FindingKind(
        "error",
        "The same image in two splits",
        "The model is evaluated on an image that it was trained on. Remove one of the two, or put both in one group.",
    ),
    "conflict": FindingKind(
        "error",
        "The same image with different labels",
        "One of the two labels is wrong, or the classes overlap. Correct one, or remove both.",
    ),
    "missing": FindingKind("warning", "Missing files", "Rows that name a file that does not exist.", False),
    "empty": FindingKind("warning", "Empty files", "Files of zero bytes, often from an interrupted copy.", False),
    "unreadable": FindingKind("warning", "Unreadable files", "They are left out of training.", False),
    "blank": FindingKind("warning", "Images of a single colour", "Images without content."),
    "label_error": FindingKind(
        "warning",
        "Labels worth checking",
        "A linear probe trained without the image and its copies prefers another class. Most of these images are only "
        "unusual: look at each before changing its label. The clearest first.",
    ),
    "across_groups": FindingKind(
        "warning",
        "The same image in two groups",
        "Splitting by group does not keep these images together. Correct the group of one, or remove one.",
    ),
    "near_duplicate_class": FindingKind(
        "warning", "Classes that are surely one", "Their names are only written differently. Use one.", False
    ),
    "few_pictures": FindingKind("warning", "Classes with few images", "Too few to train or to evaluate on.", False),
    "exact_duplicate": FindingKind(
        "note", "Exact duplicates", "Files that are equal byte by byte; within a split they only count twice."
    ),
    "same_pixels": FindingKind("note", "Duplicates in other files", "Equal pixels in another format or encoding."),
    "near_duplicate": FindingKind(
        "note",
        "Near duplicates",
        "Compressed again, resized, brightened, mirrored or slightly cropped: their fine detail agrees when aligned.",
    ),
    "imbalance": FindingKind("note", "Class imbalance", "Consider --class-weights balanced.", False),
    "blurred": FindingKind("note", "Blurred images", "Out of focus, moved, or enlarged from few pixels."),
    "dark": FindingKind("note", "Dark images", "Nearly all of the image is dark."),
    "light": FindingKind("note", "Light images", "Nearly all of the image is white or overexposed."),
    "low_information": FindingKind("note", "Images with little information", "They consist of a few grey levels."),
    "odd_size": FindingKind("note", "Odd sizes", "Much larger or smaller than most: check where they come from."),
    "small": FindingKind("note", "Small images", "They are enlarged more than twofold for the backbone."),
    "elongated": FindingKind("note", "Elongated images", "Much of them is cropped, stretched or padded."),
    "rare_mode": FindingKind(
        "note",
        "Rare colour modes",
        "The model may learn the mode instead of the content where it correlates with a class.",
    ),
    "wrong_extension": FindingKind(
        "note", "Wrong file extensions", "visionadapt reads them by their content; other programs may not."
    ),
    "repaired": FindingKind("note", "Files corrected on loading", "Rotation, colours, transparency: done."),
    "refused": FindingKind("note", "Rows that the source rejects", "Dropped, repeated or broken rows.", False),
    "unlisted": FindingKind("note", "Files that no row names", "Images below the folder that are not used.", False),
    "source": FindingKind(
        "note", "How the source was understood", "Folders taken for splits, and files that are no images.", False
    ),
    "only_here": FindingKind("note", "Rows missing from the second source", "It has no file with their bytes."),
}
"""Every kind, the most serious first."""


@dataclass(frozen=True)
class AuditFinding:
    """One finding of an audit.

    Attributes:
        kind: a key of `KINDS`.
        file: key of the row, or name of the class.
        other: key of the second row, where the finding is about two.
        label: label of the row.
        detail: what was observed, in one line.
        score: degree, higher is stronger; None for findings without one.
        index, other_index: indices of the rows in the audited manifest; −1 for none.
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
        """`error`, `warning` or `note`."""
        return KINDS[self.kind].severity


def in_order(findings: Iterable[AuditFinding]) -> tuple[AuditFinding, ...]:
    """Sort findings by kind, then by descending score; ties keep their order."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda finding: (rank[finding.kind], -(finding.score or 0.0))))


def write_tables(folder: Path, findings: Sequence[AuditFinding]) -> None:
    """Write `findings.parquet` and `findings.csv`.

    Raises:
        RunError: a file cannot be written.
    """
    from pyarrow import Table, float64, schema, string
    from pyarrow.parquet import write_table

    texts = [
        [utf8_safe(text) for text in (found.kind, found.severity, found.file, found.other, found.label, found.detail)]
        for found in findings
    ]
    rows = [dict(zip(COLUMNS, (*row, found.score), strict=True)) for row, found in zip(texts, findings, strict=True)]
    types = schema([(name, float64() if name == "score" else string()) for name in COLUMNS])
    with replacing(folder / "findings.parquet") as file:
        write_table(Table.from_pylist(rows, schema=types), file, compression="zstd")
    scores = ("" if found.score is None else round(found.score, 4) for found in findings)
    lines = ([*row, score, ""] for row, score in zip(texts, scores, strict=True))
    write_text(folder / "findings.csv", table_text((*COLUMNS, ACTION), lines))
