"""Every error that visionadapt raises on purpose, as one tree.

    VisionAdaptError
    ├── UsageError             the user must change something: exit code 2
    │   ├── SpecError          a text such as 'lora(rank=8)' cannot be read
    │   ├── SourceError        pictures or labels cannot be had from where they should be
    │   ├── SplitError         the rows cannot be divided as asked
    │   ├── BackboneError      unknown backbone, weights not at hand or not fitting
    │   ├── AdapterError       an adapter layer cannot be attached, merged or loaded there
    │   └── RunError           a run folder is missing, foreign, or belongs to something else
    ├── ImageError             one picture cannot be used: the row is rejected, the run goes on
    ├── DivergenceError        loss or weights are no longer finite
    ├── MemoryShortageError    the device has too little memory for the settings
    └── PeerError              another process that trains the same model has ended

A message is one line: what is wrong, with which file or option, and what to do about it. A user's own words come back
in many of them, URLs among these: what is secret in a URL is taken out of each `UsageError`.
"""

from __future__ import annotations

import re

_START = r"(https?://?|://)"
_USER = re.compile(_START + r"(?:[^\s<>]*|[^/<>\n]*)@")
_QUERY = re.compile(_START + r"([^\s?\"'<>]*)\?[^\s\"'<>]*")


def without_secrets(text: str) -> str:
    """Return a text without the users, passwords and queries of the URLs in it.

    >>> without_secrets("no such folder: https://me:word@host/photos?key=1")
    'no such folder: https://…@host/photos?…'
    """
    return _QUERY.sub(r"\1\2?…", _USER.sub(r"\1…@", text))


class VisionAdaptError(Exception):
    """Base of every error raised on purpose; `exit_code` is what a command ends with."""

    exit_code = 2


class UsageError(VisionAdaptError):
    """The user must change something: an option, a path, the data."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_secrets(arg) if isinstance(arg, str) else arg for arg in args))


class SpecError(UsageError):
    """A settings text cannot be read, or names something unknown."""


class SourceError(UsageError):
    """Pictures or labels cannot be had from where they should be."""


class SplitError(UsageError):
    """The rows cannot be divided into training and validation parts as asked."""


class BackboneError(UsageError):
    """A backbone is unknown, its weights are not at hand, or they do not fit."""


class AdapterError(UsageError):
    """An adapter layer cannot be attached, merged or loaded at the place asked for."""


class RunError(UsageError):
    """A run folder is missing, is not one, or does not belong to these settings."""


class ImageError(VisionAdaptError):
    """One picture cannot be used.

    Attributes:
        file: the path or key of the picture, as the user knows it.
        reason: why it cannot be used, one line without the file.
        lasting: whether it is the file's own fault; where it is not, it may be readable the next time.
    """

    def __init__(self, file: str, reason: str, lasting: bool = True) -> None:
        super().__init__(file, reason, lasting)
        self.file = file
        self.reason = reason
        self.lasting = lasting

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class DivergenceError(VisionAdaptError):
    """Loss or weights are no longer finite."""


class MemoryShortageError(VisionAdaptError):
    """The device has too little memory for the settings."""


class PeerError(VisionAdaptError):
    """Another process that trains the same model has ended, or cannot be reached."""


class Terminated(BaseException):
    """SIGTERM has come: what KeyboardInterrupt is to SIGINT."""
