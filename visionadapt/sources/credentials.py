"""Credentials given by names of environment variables: read when used, never stored and never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from visionadapt.errors import SourceError

_HIDDEN = "***"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SHORTEST_HIDDEN = 4


def check_variable(option: str, name: str) -> None:
    """Raise SourceError unless `name` can name an environment variable; it may be a secret, and is not shown."""
    if not _VARIABLE.fullmatch(name):
        raise SourceError(
            f"{option} must be the name of an environment variable, not the secret itself; set a variable, and give "
            "its name"
        )


def value_of(option: str, variable: str) -> str:
    """Return what a variable holds; its name may be a secret given by mistake, and is not shown.

    Raises:
        SourceError: it is not set.
    """
    value = os.environ.get(variable, "")
    if not value.strip():
        raise SourceError(f"the environment variable that {option} names is not set; set it to the secret")
    return value


def hiding(secrets: Iterable[str], shortest: int = 1) -> Callable[[str], str]:
    """Return a function that replaces secrets of at least `shortest` characters in a string, URL-encoded or not."""
    spellings = {text for value in secrets for text in (value, quote(value), quote(value, ""), quote_plus(value))}
    ordered = sorted((text for text in spellings if len(text) >= shortest), key=len, reverse=True)

    def hide(text: str) -> str:
        for spelling in ordered:
            text = text.replace(spelling, _HIDDEN)
        return text

    return hide


@dataclass(frozen=True)
class Credentials:
    """Secrets to send with a request, by the names of environment variables.

    Attributes:
        token: the variable whose value goes into `Authorization: Bearer …`; None for none.
        headers: further headers, name → variable.
        parameters: parameters of the query, name → variable.
    """

    token: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._variables)

    def check(self, title: str) -> None:
        """Raise SourceError where a variable or a header cannot have its name."""
        for option, name in self._variables.items():
            check_variable(f"{title}: {option}", name)
        for name in self.headers:
            if not _HEADER.fullmatch(name):
                raise SourceError(f"{title}: secret_headers= is {{header: variable}}, such as {{X-Api-Key: MY_KEY}}")

    def header_values(self) -> dict[str, str]:
        """Return the headers with their values; raise SourceError where a variable is not set."""
        token = {} if self.token is None else {"Authorization": f"Bearer {_sendable('token=', self.token)}"}
        return _values("secret_headers", self.headers) | token

    def parameter_values(self) -> dict[str, str]:
        """Return the parameters with their values; raise SourceError where a variable is not set."""
        return _values("secret_parameters", self.parameters)

    def hiding(self) -> Callable[[str], str]:
        """Return a function that hides the present values of the variables in a string."""
        values = (os.environ.get(name, "").strip() for name in self._variables.values())
        return hiding(values, _SHORTEST_HIDDEN)

    @property
    def _variables(self) -> dict[str, str]:
        """Names of variables by the option that gives each."""
        found = {} if self.token is None else {"token=": self.token}
        for option, given in (("secret_headers", self.headers), ("secret_parameters", self.parameters)):
            found |= {_entry(option, name): variable for name, variable in given.items()}
        return found


def _entry(option: str, name: str) -> str:
    return f"{option}={{{name}: …}}"


def _values(option: str, given: Mapping[str, str]) -> dict[str, str]:
    return {name: _sendable(_entry(option, name), variable) for name, variable in given.items()}


def _sendable(option: str, variable: str) -> str:
    value = value_of(option, variable).strip()
    if not (value.isascii() and value.isprintable()):
        raise SourceError(
            f"the environment variable that {option} names holds characters that no request can carry; set it again"
        )
    return value
