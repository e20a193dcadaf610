"""Options of a command in a TOML file; those on the command line take precedence."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, Token

from visionadapt.core import spec
from visionadapt.errors import UsageError
from visionadapt.runs import trust
from visionadapt.runs.options import RENAMED

OPTION = "--config"
TRUST = "--trust-config"
_TABLES = {"data": "csv", "adapter": "lora", "resize": "letterbox"}
"""Options whose value may be a table, with an example of its name."""


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Add the options in the file of `--config` to those on the command line.

    Each key is the name of an option, with `_` or `-`. An option that takes settings, such as
    `adapter = "lora(rank=8)"`, can also be a table:

        [adapter.lora]
        rank = 8

    Raises:
        UsageError: the file cannot be read, or a key is not an option.
    """
    options = {option: argument for argument in arguments for option in argument.names if option.startswith("--")}
    named = options[OPTION].tokens
    if not named:
        return
    path, trusted = Path(named[0].value), bool(options[TRUST].tokens)
    known = [option.removeprefix("--").replace("-", "_") for option in options if option not in {OPTION, TRUST}]
    for key, value in _read(path).items():
        name = RENAMED.get(key.replace("-", "_"), key.replace("-", "_"))
        if name not in known:
            raise UsageError(f"{path}: unknown key {key!r}{spec.suggestion(name, known)}")
        argument = options[f"--{name.replace('_', '-')}"]
        if not argument.tokens:
            text = _text(path, name, value)
            reasons = () if trusted else trust.wants(name, text, path.parent)
            if reasons:
                own = f"--{name.replace('_', '-')} {shlex.quote(text)}"
                raise UsageError(f"{path} would {' and '.join(reasons)}: give {own} to allow that, or {TRUST}")
            argument.append(Token(keyword=argument.name, value=text, source=str(path)))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}); name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not a TOML file ({error}); write lines such as epochs = 5") from error


def _text(path: Path, name: str, value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: {name} is a {type(value).__name__}; give a string, a number, true or false")
    example = _TABLES.get(name)
    if example is None:
        raise UsageError(f"{path}: {name} is a table; only {', '.join(_TABLES)} can be tables")
    arguments = next(iter(value.values()), None)
    if len(value) != 1 or not isinstance(arguments, Mapping):
        raise UsageError(f"{path}: [{name}] needs exactly one kind of settings, such as [{name}.{example}]")
    return spec.written(next(iter(value)), arguments)
