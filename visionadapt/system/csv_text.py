"""Write CSV that spreadsheets open without executing its content."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from visionadapt.system.text import utf8_safe

_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""OWASP, "CSV Injection": includes the full-width signs, which East Asian spreadsheets treat alike."""


def safe_cell(text: str) -> str:
    """Return a string that no spreadsheet reads as a formula: a dangerous start is prefixed with an apostrophe.

    Stray bytes of a file name are escaped.
    """
    clean = utf8_safe(text)
    return f"'{clean}" if clean.startswith(_FORMULA_STARTS) else clean


def row_text(cells: Sequence[str | float | None]) -> str:
    """Return one CSV line with its line end (RFC 4180): strings are made safe, None becomes an empty cell."""
    line = io.StringIO()
    csv.writer(line).writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells])
    return line.getvalue()


def table_text(header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """Return a complete CSV file."""
    return "".join([row_text(header), *(row_text(row) for row in rows)])
