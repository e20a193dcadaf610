"""Read JSON row by row, in constant memory: JSON Lines, and files that hold a list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from visionadapt.errors import SourceError
from visionadapt.sources.tables.contents import encoding_of, head_of, readable
from visionadapt.sources.tables.row import TableRow, json_row, nested_names

_CHUNK = 1 << 16
_LARGEST = 1 << 26
_SPACE = " \t\r\n"
_LIST = "save its rows as a list of objects, or as JSON Lines"


@dataclass(frozen=True)
class JsonFile:
    """A file with one JSON object per line, or with a list of objects.

    Attributes:
        path: the file.
        lines: whether a single object is a row of JSON Lines; otherwise it is refused, since it holds something else.
    """

    path: Path
    lines: bool = True

    def columns(self, named: Sequence[str]) -> tuple[str, ...]:
        """Return every name in any row, the dotted paths of what is in objects, and those `named` that lead there.

        Raises:
            SourceError: there are rows, and none of them can be read.
        """
        found: dict[str, None] = {}
        problem = None
        for place, value in self._values():
            row = value if isinstance(value, TableRow) else json_row(place, value, named)
            if isinstance(value, dict):
                found.update(dict.fromkeys(nested_names(value)))
            found.update(dict.fromkeys(row.cells))
            problem = problem or (row.problem and f"{place} {row.problem}")
        if not found and problem is not None:
            raise SourceError(f"{self.path}, {problem}; {_LIST}")
        return tuple(found)

    def rows(self, named: Sequence[str]) -> Iterator[TableRow]:
        """Yield every row; `named` are dotted paths that become columns. What is no object has a problem."""
        for place, value in self._values():
            yield value if isinstance(value, TableRow) else json_row(place, value, named)

    def _values(self) -> Iterator[tuple[str, Any]]:
        with readable(self.path):
            start = head_of(self.path).decode(encoding_of(self.path), "ignore").lstrip()
            if start[:1] == "[" and start[1:].lstrip()[:1] in ("{", "]", ""):
                with self.path.open(encoding=encoding_of(self.path)) as file:
                    for number, value in enumerate(_Elements(self.path, file), 1):
                        yield f"row {number}", value
                return
            if start[:1] == "{" and not self.lines and not _has_lines(self.path):
                raise SourceError(f"{self.path} {_about(self.path)}")
            yield from self._line_values()

    def _line_values(self) -> Iterator[tuple[str, Any]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    place = f"line {number}"
                    try:
                        yield place, json.loads(line.decode("utf-8-sig"))
                    except (ValueError, RecursionError) as error:
                        yield place, TableRow(place, problem=f"is no JSON ({error})")


class _Elements:
    """The elements of a JSON list in a text file, one at a time."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def __iter__(self) -> Iterator[Any]:
        """Yield each element; raise SourceError where the text is no list of JSON."""
        self._at = self._next() + 1  # behind the bracket
        while self._character() != "]":
            yield self._value()
            if self._character() == ",":
                self._at += 1
            elif self._character() != "]":
                raise self._error("a comma or a bracket is missing")
        self._at += 1
        if self._character():
            raise self._error("something follows the list")

    def _character(self) -> str:
        self._at = self._next()
        return self._text[self._at : self._at + 1]

    def _next(self) -> int:
        """The place of the next character that is no white space."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._read():
                return self._at

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if end < len(self._text) or not self._read():
                    self._at = end
                    return value
            except RecursionError:
                raise self._error("lists or objects in one another too deeply") from None
            except json.JSONDecodeError as error:
                if not self._read():
                    raise self._error(error.msg) from error

    def _read(self) -> bool:
        """Read further, and forget what is done; whether there was more."""
        size = len(self._text) - self._at
        if size > _LARGEST:
            raise self._error(f"a row has more than {_LARGEST:,} characters")
        more = self._file.read(max(_CHUNK, size))
        if more:
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _error(self, reason: str) -> SourceError:
        return SourceError(f"{self._path} is no list of JSON objects ({reason}); {_LIST}")


def _has_lines(path: Path) -> bool:
    """Whether the first line is a complete object, and another line follows."""
    with path.open("rb") as file:
        first = file.readline(_LARGEST)
        try:
            whole = isinstance(json.loads(first.decode("utf-8-sig")), dict)
        except (ValueError, RecursionError):
            return False
        return whole and any(line.strip() for line in file)


def _about(path: Path) -> str:
    """What a file with one JSON object seems to be, and what to do."""
    value: Any = {}
    if path.stat().st_size <= _LARGEST:
        try:
            value = json.loads(path.read_bytes().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            return f"is no JSON ({' '.join(str(error).split())}); {_LIST}"
    if "images" in value and "annotations" in value:
        return "is in COCO's format: write a table with one row per image and label"
    lists = [name for name, cell in value.items() if isinstance(cell, list) and cell and isinstance(cell[0], dict)]
    if lists:
        return f"holds one object, with a list in {lists[0]!r}: save that list alone, or its rows as JSON Lines"
    if value and all(isinstance(cell, dict) for cell in value.values()):
        return 'holds one object of objects; from pandas, write it with to_json(path, orient="records")'
    return f"holds one object and no list of rows: {_LIST}"
