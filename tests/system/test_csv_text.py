"""CSV text: read back cell by cell, and never a formula."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.system.csv_text import row_text, safe_cell, table_text

STARTS = "=+-@＝＋－＠\t\r\n"
CELLS = st.text(max_size=10) | st.text(alphabet="=+-@\t\r\n\",;'a é\0", max_size=6)


def read_back(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1+1", "'＝1+1"),
        ("\t=1", "'\t=1"),
        ("\r\n=1", "'\r\n=1"),
        ("cat/a=b.jpg", "cat/a=b.jpg"),
        ("'quoted", "'quoted"),
        ("", ""),
        ("a\udcff.jpg", "a\\udcff.jpg"),
        ("ü ☕", "ü ☕"),
    ],
)
def test_dangerous_starts_get_an_apostrophe(text: str, cell: str) -> None:
    assert safe_cell(text) == cell


@given(st.lists(st.lists(CELLS | st.integers() | st.floats(allow_nan=False), min_size=2, max_size=4), max_size=4))
def test_a_table_is_read_back_cell_by_cell(rows: list[list[str | int | float]]) -> None:
    text = table_text(["file", "label"], rows)
    expected = [[safe_cell(cell) if isinstance(cell, str) else str(cell) for cell in row] for row in rows]
    assert read_back(text) == [["file", "label"], *expected]
    assert text == row_text(["file", "label"]) + "".join(map(row_text, rows))


@given(CELLS)
def test_no_text_begins_a_formula_and_nothing_else_is_changed(text: str) -> None:
    ((cell, _),) = read_back(row_text([text, "x"]))
    assert not cell.startswith(tuple(STARTS))
    assert cell == (f"'{text}" if text.startswith(tuple(STARTS)) else text)


def test_numbers_are_no_formulas() -> None:
    assert row_text([-1.5, 3, "-1.5"]) == "-1.5,3,'-1.5\r\n"
    assert row_text(["a,b", 'say "x"']) == '"a,b","say ""x"""\r\n'
