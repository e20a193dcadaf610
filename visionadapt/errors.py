"""All errors that visionadapt raises on purpose, as one tree.

A message is one line: what is wrong, with which file or option, and how to fix it. Since many messages quote user
input, secrets in URLs are removed from each `UsageError`.
"""

from __future__ import annotations

import re

_START = r"(https?://?|(?<!\bhf)://|\bhf://(?!(?:datasets/)?[\w.-]+/[\w.-]+(?:[@/\s'\"),;:]|$)))"
"""In hf://ORG/NAME@REVISION and hf://datasets/ORG/NAME@REVISION, the hub's own form, nothing is a secret."""
_QUERY_START = r"(https?://?|://)"
_USER = re.compile(_START + r"(?:[^\s<>]*|[^/<>\n]*)@")
_QUERY = re.compile(_QUERY_START + r"([^\s?\"'<>]*)\?[^\s\"'<>]*")


def without_secrets(text: str) -> str:
    """Return a string without the users, passwords and queries of its URLs.

    >>> without_secrets("no such folder: https://me:word@host/photos?key=1")
    'no such folder: https://…@host/photos?…'
    """
    return _QUERY.sub(r"\1\2?…", _USER.sub(r"\1…@", text))


class VisionAdaptError(Exception):
    """Base of every error raised on purpose; `exit_code` is the exit code of a command."""

    exit_code = 2


class UsageError(VisionAdaptError):
    """The user must change something: an option, a path, the data."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_secrets(arg) if isinstance(arg, str) else arg for arg in args))


class SpecError(UsageError):
    """A settings spec cannot be parsed, or names something unknown."""


class SourceError(UsageError):
    """Images or labels cannot be read from their source."""


class SplitError(UsageError):
    """The rows cannot be split into training and validation as requested."""


class BackboneError(UsageError):
    """A backbone is unknown, or its weights are missing or incompatible."""


class AdapterError(UsageError):
    """An adapter layer cannot be attached, merged or loaded at the requested site."""


class RunError(UsageError):
    """A run folder is missing, invalid, or does not match the settings."""


class ImageError(VisionAdaptError):
    """One image cannot be used: its row is rejected, and the run continues.

    Attributes:
        file: path or key of the image, as the user knows it.
        reason: why it cannot be used, one line without the file.
        lasting: whether the file itself is at fault; if not, it may be readable next time.
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
    """Raised on a signal that ends a process, such as SIGTERM, as KeyboardInterrupt is on SIGINT.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int = 15) -> None:
        super().__init__(number)
        self.number = number
