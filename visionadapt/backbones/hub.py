"""Fetch pretrained weights through timm, and give up quickly where no hub answers."""

from __future__ import annotations

import contextlib
import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator

from huggingface_hub import constants

_PATIENCE_SECONDS = 5.0


@contextlib.contextmanager
def patient_only_with_a_hub() -> Iterator[None]:
    """Let what runs inside use the hub's cache alone if no hub answers within seconds; keep its retries quiet."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    levels = [logger.level for logger in loggers]
    offline = constants.HF_HUB_OFFLINE
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        constants.HF_HUB_OFFLINE = offline or not _hub_answers()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _hub_answers() -> bool:
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
