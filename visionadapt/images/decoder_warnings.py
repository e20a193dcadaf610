"""Silence the warnings of image decoders in every thread at once."""

from __future__ import annotations

import threading
import warnings


class _WithoutWarnings:
    """Ignore warnings while any thread is inside; the last one to leave restores the filters.

    With `warnings.catch_warnings` alone, threads would restore each other's filters.
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


without_warnings = _WithoutWarnings()
"""The one context manager that all threads share."""
