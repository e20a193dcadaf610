"""Checks of the arguments that several sources take, however they were written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionadapt.errors import SourceError


def flag(option: str, value: Any) -> bool:
    """A yes or no, also as the word that a settings text has; raise SourceError for anything else."""
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise SourceError(f"{option}={value!r} must be true or false")
    return found


def check_size(option: str, value: Any) -> None:
    """Raise SourceError where a limit is no whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SourceError(f"{option}={value!r} must be a whole number of at least 1")


def mapping(option: str, value: Any) -> dict[str, str]:
    """Texts by texts; raise SourceError where it is no mapping."""
    if not isinstance(value, Mapping):
        raise SourceError(f"{option}={value!r} must be written like {{old: new}}")
    return {str(old): str(new) for old, new in value.items()}
