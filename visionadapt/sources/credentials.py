"""Credentials by the names of environment variables: read when a request is made, kept and shown nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from visionadapt.errors import SourceError

HIDDEN = "***"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SHORTEST_HIDDEN = 4


@dataclass(frozen=True)
class Credentials:
    """What is sent with a request and must be seen nowhere else, by the names of environment variables.

    Attributes:
        token: the variable whose value goes into `Authorization: Bearer …`; None for none.
        headers: of further headers, name → variable.
        parameters: of parameters of the query, name → variable.
    """

    token: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._variables)

    def check(self, title: str) -> None:
        """Raise SourceError where something can be no variable's name; it may be a secret, and is not shown."""
        for option, name in self._variables.items():
            if not _NAME.fullmatch(name):
                raise SourceError(
                    f"{title}: {option} must be the name of an environment variable, not the secret itself; "
                    "set a variable, and give its name"
                )
        for name in self.headers:
            if not _HEADER.fullmatch(name):
                raise SourceError(f"{title}: secret_headers= is {{header: variable}}, such as {{X-Api-Key: MY_KEY}}")

    def header_values(self) -> dict[str, str]:
        """The headers with their values; raise SourceError where a variable is not set."""
        found = {name: _value(f"secret_headers={{{name}: …}}", variable) for name, variable in self.headers.items()}
        if self.token is not None:
            found["Authorization"] = f"Bearer {_value('token=', self.token)}"
        return found

    def parameter_values(self) -> dict[str, str]:
        """The parameters with their values; raise SourceError where a variable is not set."""
        return {
            name: _value(f"secret_parameters={{{name}: …}}", variable) for name, variable in self.parameters.items()
        }

    def hide(self, text: str) -> str:
        """Return a text in which no variable's value stands, however a URL would write it."""
        return self.hiding()(text)

    def hiding(self) -> Callable[[str], str]:
        """`hide` with the values of this moment, for very many texts."""
        values = {os.environ.get(name, "").strip() for name in self._variables.values()}
        spellings = {text for value in values for text in (value, quote(value), quote(value, ""), quote_plus(value))}
        ordered = sorted((text for text in spellings if len(text) >= _SHORTEST_HIDDEN), key=len, reverse=True)

        def hide(text: str) -> str:
            for spelling in ordered:
                text = text.replace(spelling, HIDDEN)
            return text

        return hide

    @property
    def _variables(self) -> dict[str, str]:
        """Names of variables by the option that gives each."""
        token = {} if self.token is None else {"token=": self.token}
        headers = {f"secret_headers={{{name}: …}}": variable for name, variable in self.headers.items()}
        return token | headers | {f"secret_parameters={{{n}: …}}": variable for n, variable in self.parameters.items()}


def _value(option: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise SourceError(f"the environment variable that {option} names is not set; set it to the secret")
    if not (value.isascii() and value.isprintable()):
        raise SourceError(f"the environment variable that {option} names holds what no request can carry; set it anew")
    return value
