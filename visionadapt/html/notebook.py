"""What notebooks show of results: small tables, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from visionadapt.metrics.words import value_of, words
from visionadapt.system.text import terminal_safe

_NOT_SHOWN = {"learning_rate", "seconds", "images_per_second"}


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return HTML of a title and rows of two columns; characters that do not print are escaped."""
    cells = "".join(
        f"<tr><th style='text-align:left;font-weight:normal'>{_safe(name)}</th>"
        f"<td style='text-align:left'>{_safe(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption style='text-align:left'><b>{_safe(title)}</b></caption><tbody>{cells}</tbody></table>"


def line(text: str) -> str:
    """Return HTML of a line of text."""
    return f"<div>{_safe(text)}</div>"


def epochs_table(epochs: Sequence[Mapping[str, Any]], kept: int) -> str:
    """Return HTML of the metrics of epochs, as `Epoch.metrics` gives them, one row each; `kept` is marked."""
    names = [name for name in epochs[0] if name not in _NOT_SHOWN]
    head = "".join(f"<th>{_safe(words(name))}</th>" for name in names)
    rows = []
    for metrics in epochs:
        cells = "".join(f"<td>{_safe(_cell(name, metrics[name]))}</td>" for name in names)
        rows.append(f"<tr>{cells}<td>{'← kept' if metrics['epoch'] == kept else ''}</td></tr>")
    return f"<table><thead><tr>{head}<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(name: str, value: float | int | None) -> str:
    return str(value) if name == "epoch" else value_of(name, value)


def _safe(text: str) -> str:
    return html.escape(terminal_safe(text, one_line=True))
