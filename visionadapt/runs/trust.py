"""What a text out of a file may do without the user's word: the one place that decides. Loads no torch.

A run folder, a configuration file or a table may come from a stranger. What it says is data: reading images from local
files, and weights that are checked by their hash. All else that a text could start is listed by `wants`, and happens
only if the user repeats the option on the command line or allows it there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from visionadapt.core import spec
from visionadapt.errors import SpecError
from visionadapt.sources.hub import is_hub_address
from visionadapt.sources.objects.urls import is_object_url

_LOCAL_SOURCES = frozenset(
    f"visionadapt.sources:{name}"
    for name in ("FolderSource", "FileSource", "ManifestSource", "ShardSource", "TableSource")
)
"""Sources that only read local files, unless a URL is given; any other one is assumed to contact something."""


def wants(option: str, value: Any, inside: Path | None = None) -> list[str]:
    """Return what a stored option would do that needs the user's word: `import photos:Source`, `contact https://…`.

    Args:
        option: name of the option, with underscores.
        value: as it is stored; what is not a text wants nothing.
        inside: the folder that the file belongs to, in which it may name paths.
    """
    if option == "trust_run" and value not in {False, "false"}:
        return ["trust any run folder"]
    if not isinstance(value, str):
        return []
    if is_hub_address(value) or (option == "weights" and is_object_url(value)):
        return [f"download {value}"]
    if option == "data":
        return list(_of_source(value))
    if option in {"augment", "tracker", "adapter"}:
        return [f"import {name}" for name in _own_names(value, whole=option != "adapter")]
    if option == "backbone" and (":" in value or "/" in value):
        return [f"download {value}"]
    if option == "cache" and not _is_cache(Path(value), inside):
        return [f"write into {value}"]
    return []


def wanted_by(options: Mapping[str, Any], inside: Path | None = None) -> dict[str, list[str]]:
    """Return what stored options want, by name; only those that want something."""
    found = {name: wants(name, value, inside) for name, value in options.items()}
    return {name: reasons for name, reasons in found.items() if reasons}


def _of_source(text: str) -> Iterator[str]:
    if os.path.exists(text):  # noqa: PTH110 - a Path refuses a text longer than a file's name
        return
    try:
        calls = list(_calls(spec.read(text)))
    except SpecError:
        if ":" in text:
            yield f"open {text}"
        return
    for call in calls:
        if ":" in call.name:
            yield f"import {call.name}"
        elif call.name in spec.NAMES["source"]:
            arguments = list(_texts((*call.args, *call.kwargs.values())))
            addresses = [argument for argument in arguments if "://" in argument or argument.startswith("env:")]
            if not addresses and spec.NAMES["source"][call.name].target in _LOCAL_SOURCES:
                continue
            secrets = any("token" in name or "secret" in name or "password" in name for name in call.kwargs)
            told = " with secrets from environment variables" if secrets else ""
            address = (addresses or [f"what {call.name} names"])[0]
            yield f"{'download' if is_hub_address(address) else 'contact'} {address}{told}"


def _own_names(text: str, *, whole: bool) -> list[str]:
    """Return the names of own modules in a text; with `whole`, every name with a colon is one."""
    if whole:
        return [name for name in text.split(",") if ":" in name]
    try:
        return [call.name for call in _calls(spec.read(text)) if ":" in call.name]
    except SpecError:
        return [text] if ":" in text else []


def _calls(call: spec.Call) -> Iterator[spec.Call]:
    """Yield a call and all calls among its arguments."""
    yield call
    for value in _flat((*call.args, *call.kwargs.values())):
        if isinstance(value, spec.Call):
            yield from _calls(value)


def _texts(values: Iterable[Any]) -> Iterator[str]:
    return (value for value in _flat(values) if isinstance(value, str))


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Mapping):
            yield from _flat((*value.keys(), *value.values()))
        elif isinstance(value, tuple):
            yield from _flat(value)
        else:
            yield value


def _is_cache(folder: Path, inside: Path | None) -> bool:
    """Whether a folder is a feature cache already, the user's own one, or in the folder that names it."""
    from visionadapt.system.cache_folder import default_folder

    if inside is not None and folder.resolve().is_relative_to(inside.resolve()):
        return True
    return folder == default_folder() or any(folder.glob("*/space.json"))
