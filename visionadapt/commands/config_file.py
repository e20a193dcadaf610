"""A command's options in a TOML file: read under those of the command line, and written to repeat a run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, Token

from visionadapt.core import spec
from visionadapt.errors import UsageError

OPTION = "--config"
_TABLES = {"data": "csv", "adapter": "lora", "resize": "letterbox"}
"""Options whose value may be a table, with an example of its name."""


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give the options that the file of `--config` names to those arguments that the command line lacks.

    Each key is an option's name, with `_` or `-`. Where an option is a settings text, such as
    `adapter = "lora(rank=8)"`, a table may stand for it:

        [adapter.lora]
        rank = 8

    Raises:
        UsageError: the file cannot be read, or a key is no option.
    """
    options = {option: argument for argument in arguments for option in argument.names if option.startswith("--")}
    named = options[OPTION].tokens
    if not named:
        return
    path = Path(named[0].value)
    known = [option.removeprefix("--").replace("-", "_") for option in options if option != OPTION]
    for key, value in _read(path).items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(f"{path}: unknown key {key!r}{spec.suggestion(name, known)}")
        argument = options[f"--{name.replace('_', '-')}"]
        if not argument.tokens:
            argument.append(Token(keyword=argument.name, value=_text(path, name, value), source=str(path)))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}); name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is no TOML file ({error}); write lines such as epochs = 5") from error


def _text(path: Path, name: str, value: Any) -> str:
    """A value as it would stand on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: {name} is a {type(value).__name__}; give a text, a number, true or false")
    example = _TABLES.get(name)
    if example is None:
        raise UsageError(f"{path}: {name} is a table, which only {', '.join(_TABLES)} can be")
    arguments = next(iter(value.values()), None)
    if len(value) != 1 or not isinstance(arguments, Mapping):
        raise UsageError(f"{path}: [{name}] needs the name of one kind of settings, such as [{name}.{example}]")
    return spec.written(next(iter(value)), arguments)


def toml_text(values: Mapping[str, Any]) -> str:
    """Options as TOML, a line each.

    >>> print(toml_text({"data": "photos", "epochs": 5, "checkpointing": False}), end="")
    data = "photos"
    epochs = 5
    checkpointing = false
    """
    return "".join(f"{name} = {_value(value)}\n" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else f'"{"".join(_escaped(str(value)))}"'


def _escaped(text: str) -> Iterator[str]:
    """The characters of a basic string (TOML 1.0): quotation marks, backslashes and what does not print, escaped."""
    for character in text:
        if character in '"\\':
            yield f"\\{character}"
        else:
            yield character if character.isprintable() else f"\\U{ord(character):08x}"
