"""One row of a table: its place, and the strings in its cells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from visionadapt.system.text import utf8_safe

Cells = Mapping[str, tuple[str, ...]]

MISSING = object()
"""What `lookup` returns where a path leads to nothing."""
_DEEPEST = 8


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        place: where it is, such as `line 17`.
        cells: the strings of each column: none where the cell is empty, several where it is a list.
        problem: why the row cannot be read; None for all others.
        folder: of a table in several files, that of the row's file below the one of all; paths are relative to it.
    """

    place: str
    cells: Cells = field(default_factory=dict)
    problem: str | None = None
    folder: str = ""

    def only(self, column: str | None) -> str | None:
        """Return the one string of a cell, without surrounding white space; None where it has none, or several."""
        cell = self.cells.get(column, ()) if column is not None else ()
        return (cell[0].strip() or None) if len(cell) == 1 else None


def texts(value: Any) -> tuple[str, ...]:
    """Return the value of a cell as strings: nothing for an empty one, None and NaN, several for a list."""
    if value is None or value == "" or value != value:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(text for part in value for text in texts(part))
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return (utf8_safe(str(value)),)


def json_row(place: str, value: Any, named: Sequence[str] = ()) -> TableRow:
    """Return a JSON object as a row; for any other value, a row with a problem.

    `named` are names or dotted paths that become columns of their own.
    """
    if not isinstance(value, dict):
        return TableRow(place, problem="is no JSON object")
    try:
        cells = {(texts(name) or ("",))[0]: texts(cell) for name, cell in value.items()}
        found = {path: lookup(value, path) for path in named if path not in value}
        return TableRow(place, {**cells, **{path: texts(cell) for path, cell in found.items() if cell is not MISSING}})
    except RecursionError:
        return TableRow(place, problem="has lists or objects in one another too deeply")


def lookup(value: Any, path: str) -> Any:
    """Return the value at a dotted path such as `data.items` or `images.0.url`; MISSING where there is none."""
    for name in path.split(".") if path else ():
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value


def nested_names(value: Mapping[Any, Any], before: str = "", depth: int = 1) -> Iterator[str]:
    """Yield the names in a JSON object, each followed by the dotted paths of what is in it."""
    for name, cell in value.items():
        path = (texts(f"{before}{name}") or ("",))[0]
        yield path
        if isinstance(cell, dict) and depth < _DEEPEST:
            yield from nested_names(cell, f"{path}.", depth + 1)
