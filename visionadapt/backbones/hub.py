"""Access to the Hugging Face Hub: fall back to its local cache within seconds where it does not answer."""

from __future__ import annotations

import contextlib
import logging
import socket
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator

from huggingface_hub import constants

_TIMEOUT_SECONDS = 5.0


@contextlib.contextmanager
def offline_unless_hub_answers() -> Iterator[bool]:
    """Yield whether the hub answers within seconds; if not, code in the context uses only the hub's local cache.

    On its own, the hub's client retries for most of a minute and reports that on the console.
    """
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    levels = [logger.level for logger in loggers]
    offline, timeout = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        answers = not offline and _hub_answers()
        constants.HF_HUB_OFFLINE = not answers
        socket.setdefaulttimeout(timeout if answers else _TIMEOUT_SECONDS)
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
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
