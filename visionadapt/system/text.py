"""Text for people, harmless wherever it is shown."""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t\u200c\u200d"
_ACTING = {"Cc", "Cf", "Zl", "Zp"}


def visible(text: str) -> str:
    r"""A text that cannot act on a terminal: control and direction characters, and stray bytes, become escapes.

    Line ends and tabs stay, and the joiners that scripts and emoji are written with.

    >>> visible("red\x1b[31m")
    'red\\x1b[31m'
    """
    kept = (each.encode("unicode_escape").decode() if _acts(each) else each for each in text)
    return "".join(kept).encode("utf-8", "backslashreplace").decode()


def _acts(character: str) -> bool:
    return character not in _KEPT and unicodedata.category(character) in _ACTING
