"""Keys of records: relative POSIX paths in Unicode NFC, each of its own."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from itertools import count


def key_of(location: str) -> str:
    """Return the key of a file: its POSIX path in Unicode NFC; bytes of a name that are not UTF-8 become escapes."""
    text = os.fsencode(location).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text.replace(os.sep, "/"))


def plain_key(text: str) -> str:
    """Return any text as a key: relative, POSIX, without `..`, Unicode NFC; empty where it names nothing."""
    plain = text.strip().replace("\\", "/").replace("\0", "\\x00")
    return unicodedata.normalize("NFC", posixpath.normpath(f"/{plain}").lstrip("/"))


class UniqueKeys:
    """Gives each file a key that no other has: its name, or its name and a number."""

    def __init__(self) -> None:
        self._files_of: dict[str, int] = {}

    def own(self, name: str) -> tuple[str, bool]:
        """Return the key of the next file, and whether another file of the same name came before."""
        taken, before = name in self._files_of, self._files_of.get(name, 0)
        self._files_of[name] = before + 1
        if not taken:
            return name, False
        numbered = (f"{name}#{number}" for number in count(max(before, 1) + 1))
        key = next(key for key in numbered if key not in self._files_of)
        self._files_of[key] = 0
        return key, before > 0
