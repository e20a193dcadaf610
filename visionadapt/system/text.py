"""Make text safe to write as UTF-8 and to show in a terminal."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence

_SPECIAL = re.compile(r'["`!\n]|\$[\w({*@#?!$-]|\\[$"`\\\n]|\\$')
"""What has a meaning to a shell between double quotation marks."""
_JOINERS = "\u200c\u200d"
_LAYOUT = "\n\t"
_ACTING = {"Cc", "Cf", "Zl", "Zp"}


def utf8_safe(text: str) -> str:
    r"""Return a string that can be encoded as UTF-8: stray bytes of a file name become escapes.

    >>> utf8_safe("a\udcff.png")
    'a\\udcff.png'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def terminal_safe(text: str, *, one_line: bool = False) -> str:
    r"""Return a string that cannot act on a terminal: control and direction characters and stray bytes become escapes.

    Joiners, which scripts and emoji need, stay; so do line ends and tabs unless `one_line`.

    >>> terminal_safe("red\x1b[31m")
    'red\\x1b[31m'
    """
    harmless = _JOINERS if one_line else _LAYOUT + _JOINERS
    return utf8_safe("".join(each if each in harmless else _escaped(each) for each in text))


def for_shell(text: str) -> str:
    """Return a text in quotation marks, as a command line takes it: nothing in it has a meaning to a shell.

    >>> for_shell("csv(a b.csv)"), for_shell("$(touch a)")
    ('"csv(a b.csv)"', "'$(touch a)'")
    """
    return shlex.quote(text) if _SPECIAL.search(text) else f'"{text}"'


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number and what it counts, in the singular or the plural.

    >>> counted(1, "image"), counted(1_200, "image"), counted(2, "copy", "copies")
    ('1 image', '1,200 images', '2 copies')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share for people; a dash for None.

    >>> percent(0.8065), percent(0.8, 0), percent(None)
    ('80.7 %', '80 %', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def signed(value: float) -> str:
    """Format a difference with one decimal, its sign, and a minus that is as wide as the plus.

    >>> signed(4.25), signed(-2.2)
    ('+4.2', '−2.2')
    """
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def written_size(count: float) -> str:
    """Format a number of bytes for display.

    >>> written_size(1_500_000_000)
    '1.5 GB'
    """
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first few of some names, and how many more there are.

    >>> first_of(["a", "b", "c"], 1)
    'a and 2 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _escaped(character: str) -> str:
    acts = unicodedata.category(character) in _ACTING
    return character.encode("unicode_escape").decode() if acts else character
