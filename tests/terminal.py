"""A terminal of 24 lines and 80 columns whose screen a test can read."""

from __future__ import annotations

import os
import pty
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pyte

LINES, COLUMNS = 24, 80


class Terminal:
    """What was written to `file`, as a person sees it."""

    def __init__(self, file: TextIO, master: int) -> None:
        self.file, self.raw = file, b""
        self.screen: Any = pyte.HistoryScreen(COLUMNS, LINES, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(master,), daemon=True)
        self._reader.start()

    def _read(self, master: int) -> None:
        while True:
            try:
                data = os.read(master, 65_536)
            except OSError:
                return
            with self._changed:
                self.raw += data
                self._stream.feed(data)
                self._changed.notify_all()

    def lines(self) -> list[str]:
        """The screen's lines, without blanks at their ends, to the last that is not empty."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().splitlines()

    def wait_for(self, *texts: str, seconds: float = 60) -> bool:
        """Wait until all texts were on the screen at once."""

        def there() -> bool:
            shown = "\n".join(self.screen.display)
            return all(text in shown for text in texts)

        with self._changed:
            return self._changed.wait_for(there, seconds)

    def close(self) -> None:
        self.file.close()
        self._reader.join(10)


@contextmanager
def terminal() -> Iterator[Terminal]:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (LINES, COLUMNS))
    shown = Terminal(os.fdopen(slave, "w", encoding="utf-8"), master)
    try:
        yield shown
    finally:
        shown.close()
        os.close(master)
