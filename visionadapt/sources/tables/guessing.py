"""Guess which columns hold images, labels and splits, by their names and first cells. For messages only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from visionadapt.sources.split_names import SPLIT_NAMES
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.walk import IMAGE_SUFFIXES

IMAGE_NAMES = (
    *("image", "file", "path", "filename", "filepath", "imagepath", "imagefile", "imagefilename", "imagename"),
    *("imgpath", "imgname", "img", "imageid", "photo", "picture", "imageurl", "url", "id"),
)
"""What columns of images are usually called, in lower case, without `_`, spaces and the like; likewise below."""
LABEL_NAMES = (
    *("label", "class", "category", "target", "labels", "classname", "labelname", "categoryname", "classes", "tags"),
    *("categories", "species", "breed", "diagnosis", "dx", "classid", "labelid", "categoryid", "choice"),
    *("findinglabels", "y"),
)
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset", "isvalid", "isval", "istest", "isvalidation")
_ROWS = 10
"""From so many rows on, values that all differ are no labels."""
_PIXELS = 64
"""So many numbers are pixels; the smallest images in tables are 8 × 8."""
_MARKS = {"0", "1", "0.0", "1.0", "-1", "-1.0", "true", "false", "yes", "no", ""}


def guessed_columns(
    columns: Sequence[str], rows: Iterable[TableRow], images: Sequence[str] = (), image: str | None = None
) -> dict[str, Any]:
    """Return the likely columns by option: `image`, and where they are found `label` (several columns of 0 and 1 as a
    list) and `split`.

    Args:
        columns: all columns.
        rows: the first rows.
        images: columns that hold images themselves.
        image: the column that surely names them, if it is known.
    """
    read = [row for row in rows if row.problem is None]
    cells = {name: [row.only(name) or "" for row in read] for name in columns}
    paths = [name for name in columns if _most(_names_an_image, cells[name])]
    image = image or _called(IMAGE_NAMES, images) or _called(IMAGE_NAMES, paths) or next(iter([*images, *paths]), None)
    image = image or _called(IMAGE_NAMES, columns)
    if image is None:
        return {}
    others = [name for name in columns if name and not f"{name}.".startswith(f"{image}.")]
    others = [name for name in others if not image.startswith(f"{name}.")]
    split = _called(SPLIT_COLUMNS, others)
    others = [name for name in others if name != split and _plain(name) not in IMAGE_NAMES]
    others = [name for name in others if not _tells_rows_apart(cells[name])]
    marks = [name for name in others if any(cells[name]) and {cell.lower() for cell in cells[name]} <= _MARKS]
    label: Any = _called(LABEL_NAMES, others)
    if label is None and len(marks) > 1 and 2 * len(marks) >= len(others):
        label = marks
    elif label is None and len(others) == 1:
        label = others[0]
    return {name: value for name, value in (("image", image), ("label", label), ("split", split)) if value is not None}


def likely_data(columns: Sequence[str], rows: Iterable[TableRow] = ()) -> dict[str, str]:
    """Return the likely columns of a table whose header is a row of data: columns `1`, `2`, …; empty if it is none.

    Args:
        columns: the cells of the header.
        rows: the first rows, with columns of these names.
    """
    image = next((number for number, cell in enumerate(columns, 1) if _names_an_image(cell)), None)
    if image is None:
        return {}
    first = dict(enumerate(columns, 1))
    read = [row for row in rows if row.problem is None]
    rest = [number for number in first if number != image]
    split = next((number for number in rest if first[number].casefold() in SPLIT_NAMES), None)
    cells = {number: [row.only(str(number)) or "" for row in read] for number in rest if number != split}
    rest = [number for number in cells if not _tells_rows_apart(cells[number])]
    words = [number for number in rest if not _is_number(first[number])]
    label = rest[0] if len(rest) == 1 else words[0] if len(words) == 1 else None
    found = {"image": image, "label": label, "split": split}
    return {name: str(number) for name, number in found.items() if number is not None}


def pixels_in(columns: Sequence[str], rows: Iterable[TableRow]) -> bool:
    """Whether rows hold the pixels of an image: many numbers from 0 to 255 in columns, or in one cell; and no file."""
    read = [row for row in rows if row.problem is None]
    cells = [[row.only(name) or "" for row in read] for name in columns]
    if not read or any(_most(_names_an_image, column) for column in cells):
        return False
    numbers = [column for column in cells if all(map(_is_sample, column))]
    if len(numbers) >= _PIXELS and 2 * len(numbers) > len(columns):
        return 8 * sum(not {*column} <= _MARKS for column in numbers) >= _PIXELS  # others are columns of classes
    lists = ([cell.split() for cell in column] for column in cells)
    return any(all(len(parts) >= _PIXELS and all(map(_is_sample, parts)) for parts in column) for column in lists)


def _is_sample(cell: str) -> bool:
    return len(cell) <= 3 and cell.isdecimal() and int(cell) < 256


def _called(usual: Sequence[str], columns: Sequence[str]) -> str | None:
    """The column with the first of the usual names."""
    plain = {_plain(name): name for name in reversed(columns)}
    return next((plain[name] for name in usual if name in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.rpartition(".")[2].casefold())


def _names_an_image(cell: str) -> bool:
    return PurePosixPath(cell.strip().replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


def _tells_rows_apart(cells: Sequence[str]) -> bool:
    """Whether every row has another value, as numbers of rows are and labels are not."""
    return len(cells) >= _ROWS and len({*cells}) == len(cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _most(test: Callable[[str], bool], cells: Sequence[str]) -> bool:
    return sum(map(test, cells)) * 2 > len(cells)
