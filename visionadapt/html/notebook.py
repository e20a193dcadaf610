"""What notebooks show of a result: a small table, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

from visionadapt.system.text import terminal_safe


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return HTML of a title and rows of two columns; characters that do not print are escaped."""
    cells = "".join(
        f"<tr><th style='text-align:left;font-weight:normal'>{_safe(name)}</th>"
        f"<td style='text-align:left'>{_safe(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption style='text-align:left'><b>{_safe(title)}</b></caption><tbody>{cells}</tbody></table>"


def _safe(text: str) -> str:
    return html.escape(terminal_safe(text, one_line=True))
