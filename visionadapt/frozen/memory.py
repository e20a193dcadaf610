"""Compute in smaller portions where a device has too little memory for a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from visionadapt.errors import MemoryShortageError

T = TypeVar("T")

SMALLER = "give a smaller --image-size or --backbone, or --device cpu"
"""Advice where not even one image fits."""

_log = logging.getLogger("visionadapt")


class Portions:
    """How many rows of a batch are computed at once: all of them, until the memory is too small for that."""

    def __init__(self) -> None:
        self.most: int | None = None

    def attempt(self, rows: int, work: Callable[[int], T], device: str, advice: str = SMALLER) -> T:
        """Return what `work` returns for the largest portion of `rows` rows that fits: it is called again with half.

        Raises:
            MemoryShortageError: not even one row fits.
        """
        while True:
            portion = max(min(self.most or rows, rows), 1)
            try:
                return work(portion)
            except torch.OutOfMemoryError as error:
                if portion == 1:
                    raise _shortage(device, advice) from error
            # outside of the handler, whose error would keep the tensors of the failed attempt
            self.most = -(-portion // 2)
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
            text = "%s has too little memory for %d images at once: it computes %d at a time, to the same result"
            _log.warning(text, device, portion, self.most)


@contextmanager
def enough_memory(device: str, advice: str = SMALLER) -> Iterator[None]:
    """Turn the device's out-of-memory error into one line with advice on what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _shortage(device, advice) from error


def _shortage(device: str, advice: str) -> MemoryShortageError:
    return MemoryShortageError(f"{device} has too little memory: {advice}")
