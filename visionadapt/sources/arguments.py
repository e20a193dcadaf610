"""Check the constructor arguments that several sources take, as Python objects or as words of a settings text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visionadapt.errors import SourceError


def flag(option: str, value: Any) -> bool:
    """Return a boolean, also from the word `true` or `false`; raise SourceError for anything else."""
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise SourceError(f"{option}={value!r} must be true or false")
    return found


def check_size(option: str, value: Any) -> None:
    """Raise SourceError unless a limit is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SourceError(f"{option}={value!r} must be a whole number of at least 1")


def check_choice(option: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise SourceError unless a value is one of those known."""
    if value not in known:
        raise SourceError(f"{option}={value!r} is unknown (known: {', '.join(known)})")


def mapping(option: str, value: Any) -> dict[str, str]:
    """Return a mapping of strings to strings; raise SourceError where the value is no mapping."""
    if not isinstance(value, Mapping):
        raise SourceError(f"{option}={value!r} must be written like {{old: new}}")
    return {str(old): str(new) for old, new in value.items()}


def several(value: Any) -> tuple[str, ...]:
    """Return one value or several as strings; None is none, and a mapping is refused with SourceError."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        raise SourceError(f"{value!r} must be one name, or several in brackets")
    one = isinstance(value, str) or not isinstance(value, Iterable)
    return (str(value),) if one else tuple(map(str, value))


def text(value: Any) -> str | None:
    """Return a value as a string, and None as None."""
    return None if value is None else str(value)


def mode_of(what: str, path: str | Path) -> int:
    """Return the mode bits of a file or folder; raise SourceError where it is missing or cannot be accessed."""
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError as error:
        raise SourceError(f"no such {what}: {path}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"the {what} {path} cannot be read ({getattr(error, 'strerror', error)})") from error


@contextmanager
def needing(what: str, packages: str, extra: str) -> Iterator[None]:
    """Turn an ImportError in the block into a SourceError that says what to install."""
    try:
        yield
    except ImportError as error:
        raise SourceError(f"{what} needs {packages}; pip install 'visionadapt[{extra}]'") from error
