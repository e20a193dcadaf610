"""Text that is safe to write and to show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.system.text import terminal_safe, utf8_safe

ANY = st.text(st.characters(exclude_categories=[]))
"""Surrogates, which stand for the stray bytes of file names, included."""


@given(ANY)
def test_any_text_can_be_written_as_utf_8_and_unicode_text_stays(text: str) -> None:
    written = utf8_safe(text)
    written.encode("utf-8")
    assert written == text or any("\ud800" <= each <= "\udfff" for each in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        ("\x9b31m", r"\x9b31m"),
        ("kočka 猫\t<b>[red]", "kočka 猫\t<b>[red]"),
    ],
)
def test_no_text_acts_on_the_terminal(text: str, shown: str) -> None:
    assert terminal_safe(text) == shown


@given(ANY)
def test_a_line_stays_one_line(text: str) -> None:
    assert len(terminal_safe(text, one_line=True).splitlines()) <= 1
    assert terminal_safe("a\n\tb", one_line=True) == r"a\n\tb"
