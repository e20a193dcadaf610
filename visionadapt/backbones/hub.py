"""Fetch pretrained weights through timm, and give up quickly where no hub answers."""

from __future__ import annotations

import contextlib
import logging
import socket
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator

from huggingface_hub import constants

_PATIENCE_SECONDS = 5.0


@contextlib.contextmanager
def patient_only_with_a_hub() -> Iterator[bool]:
    """Give whether the hub answers within seconds; if not, what runs inside uses the hub's cache alone.

    The hub's client by itself tries again for most of a minute, and says so on the console.
    """
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    levels = [logger.level for logger in loggers]
    offline, timeout = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        answers = not offline and _hub_answers()
        constants.HF_HUB_OFFLINE = not answers
        socket.setdefaulttimeout(timeout if answers else _PATIENCE_SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield answers
    finally:
        socket.setdefaulttimeout(timeout)
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
