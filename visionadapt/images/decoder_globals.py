"""Global state of image decoders while they run, in every thread at once: no warnings, no output, no half images."""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from functools import cache

from PIL import ImageFile, _imaging


class _Strict:
    """Ignore warnings and refuse truncated files while any thread is inside; the last one to leave restores both.

    With `warnings.catch_warnings` alone, threads would restore each other's filters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()
        self._truncated = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                _silence_libraries()
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
                self._truncated = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._truncated
                self._filters.__exit__(None, None, None)


strict_decoders = _Strict()
"""The one context manager that all threads share."""


@cache
def _silence_libraries() -> None:
    """Keep lines off the process's standard error: libtiff's errors, and Pillow's log where no program handles it."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    except (AttributeError, OSError):
        return
