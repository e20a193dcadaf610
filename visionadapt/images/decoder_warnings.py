"""Keep a decoder's warnings in, whichever thread decodes."""

from __future__ import annotations

import threading
import warnings


class _Quiet:
    """No warning while any thread is inside; the filters that were there come back when the last one leaves.

    `warnings.catch_warnings` alone would leave those of whichever thread leaves last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


without_warnings = _Quiet()
"""The one context of all threads."""
