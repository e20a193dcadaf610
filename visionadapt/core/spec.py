"""Settings as text: `parse('lora(rank=8)', 'adapter')` gives `LoRA(rank=8)`, `format` gives the text back.

`NAMES` is the only table of names. It loads no torch, and nothing registers itself in it. A user-defined name is
`module:Class` or `file.py:Class`, imported only if the caller allows it. `core/spec_syntax.py` reads the syntax.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import operator
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from visionadapt.core.spec_syntax import Call as Call
from visionadapt.core.spec_syntax import is_bare
from visionadapt.core.spec_syntax import read as read
from visionadapt.errors import SpecError


@dataclass(frozen=True)
class Entry:
    """The meaning of a name: `target` as `module:Class`, and the fields that the name presets."""

    target: str
    preset: Mapping[str, Any] = field(default_factory=dict)


NAMES: dict[str, dict[str, Entry]] = {
    "source": {
        "folder": Entry("visionadapt.sources:FolderSource"),
        "bucket": Entry("visionadapt.sources:BucketSource"),
        "files": Entry("visionadapt.sources:FileSource"),
        "shards": Entry("visionadapt.sources:ShardSource"),
        "manifest": Entry("visionadapt.sources:ManifestSource"),
        "api": Entry("visionadapt.sources:ApiSource"),
        "sql": Entry("visionadapt.sources:SqlSource"),
        **{
            kind: Entry("visionadapt.sources:TableSource", {"format": kind})
            for kind in ("csv", "tsv", "json", "jsonl", "parquet", "arrow")
        },
    },
    "resize": {
        policy: Entry("visionadapt.images:ResizeAdapter", {"policy": policy})
        for policy in ("crop", "squash", "letterbox")
    },
    "adapter": {
        name: Entry(f"visionadapt.adapters:{target}")
        for name, target in {
            "adaptformer": "AdaptFormer",
            "bitfit": "BitFit",
            "bottleneck": "Bottleneck",
            "convadapter": "ConvAdapter",
            "convpass": "Convpass",
            "dora": "DoRA",
            "full": "FullFineTuning",
            "ia3": "IA3",
            "lora": "LoRA",
            "lpft": "LinearProbeFineTuning",
            "norm": "NormTuning",
            "partial": "PartialFineTuning",
            "repadapter": "RepAdapter",
            "side": "SideNetwork",
            "ssf": "SSF",
            "vpt": "VPT",
        }.items()
    },
}


def parse(text: str, kind: str, *, allow_import: bool = False) -> Any:
    """Return the settings object that a spec such as `lora(rank=8)` describes; `kind` is a key of `NAMES`.

    `allow_import` says whether `module:Class` may import a user-defined module; never for text read from a file. Raise
    SpecError if the text cannot be parsed, the name is unknown, or an argument is invalid.
    """
    return _build(read(text), kind, text, allow_import)


def format(settings: Any, kind: str) -> str:  # noqa: A001 - the counterpart of spec.parse
    """Return the spec that `parse` turns back into settings, a dataclass; raise SpecError if a value has no text."""
    module = type(settings).__module__
    path = f"{_files.get(module, module)}:{type(settings).__qualname__}"
    name, preset = path, {}
    for candidate, entry in NAMES[kind].items():
        if _same_class(entry.target, settings) and all(getattr(settings, k) == v for k, v in entry.preset.items()):
            name, preset = candidate, dict(entry.preset)
            break
    words = []
    for position, item in enumerate(dataclasses.fields(settings)):
        value = getattr(settings, item.name)
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if item.name in preset or not item.init or (not required and value == _default(item)):
            continue
        by_place = required and position == 0 and not item.kw_only
        words.append(_word(value, kind) if by_place else f"{item.name}={_word(value, kind)}")
    return f"{name}({', '.join(words)})" if words else name


def written(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the spec of a name and its arguments; only `parse` validates it.

    >>> written("lora", {"rank": 8, "blocks": "last:6"})
    'lora(rank=8, blocks=last:6)'

    Raises:
        SpecError: an argument cannot be written as text.
    """
    words = [f"{key}={_word(value, '')}" for key, value in arguments.items()]
    return f"{name}({', '.join(words)})" if words else name


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` or an empty string."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(wrong.casefold(), folded, n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def imported(path: str) -> Any:
    """Return the user-defined object `module:name` or `file.py:name`; raise SpecError if it cannot be imported.

    Modules are also searched in the working folder. A file is imported under its own name, so that worker processes
    find it.
    """
    module, _, attribute = path.rpartition(":")
    try:
        return operator.attrgetter(attribute)(_own_module(module))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise SpecError(f"{path!r} cannot be imported ({error}); write it as module:name or file.py:name") from error


_files: dict[str, str] = {}
"""Modules imported from files, with the paths of these files."""


def called(target: Any, *args: Any, **kwargs: Any) -> Any:
    """Return `target(*args, **kwargs)`; a TypeError names the arguments, not `__init__`."""
    with suppress(ValueError):  # a built-in without a signature
        inspect.signature(target).bind(*args, **kwargs)
    return target(*args, **kwargs)


def _own_module(name: str) -> ModuleType:
    importlib.invalidate_caches()
    if not name.endswith(".py"):
        _findable(Path.cwd())
        return importlib.import_module(name)
    file = Path(name).resolve()
    if not file.is_file():
        raise ImportError(f"no such file: {file}")
    _findable(file.parent)
    module = importlib.import_module(file.stem)
    if module.__file__ is None or Path(module.__file__).resolve() != file:
        raise ImportError(f"another module is called {file.stem}; rename {file.name}")
    _files[file.stem] = str(file)
    return module


def _findable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _build(call: Call, kind: str, text: str, allow_import: bool) -> Any:
    target, preset = _target(call.name, kind, text, allow_import)
    args = [_nested(value, kind, text) for value in call.args]
    kwargs = {key: _nested(value, kind, text) for key, value in call.kwargs.items()}
    fixed = set(preset) & set(kwargs)
    if fixed:
        raise SpecError(f"{text!r}: {call.name!r} already sets {', '.join(sorted(fixed))}; leave it out")
    _check_names(target, kwargs, text)
    try:
        return called(target, *args, **preset, **kwargs)
    except TypeError as error:
        known = ", ".join(_field_names(target))
        raise SpecError(f"{text!r}: the arguments do not fit ({error}); {call.name} takes: {known}") from error


def _nested(value: Any, kind: str, text: str) -> Any:
    """Return an argument with the settings that stand in it; a nested name is never imported."""
    if isinstance(value, Call):
        return _build(value, kind, text, allow_import=False)
    if isinstance(value, tuple):
        return tuple(_nested(part, kind, text) for part in value)
    if isinstance(value, dict):
        return {key: _nested(part, kind, text) for key, part in value.items()}
    return value


def _target(name: str, kind: str, text: str, allow_import: bool) -> tuple[Any, Mapping[str, Any]]:
    entry = NAMES[kind].get(name)
    if entry is not None:
        return _load(entry.target), entry.preset
    if ":" not in name:
        known = NAMES[kind]
        raise SpecError(
            f"{text!r}: unknown {kind} {name!r}{suggestion(name, known)} "
            f"(known: {', '.join(known)}; your own as module:Class)"
        )
    if not allow_import:
        raise SpecError(f"{text!r}: {name!r} is code of its own, imported only as the whole value of an option")
    return imported(name), {}


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


def _same_class(target: str, settings: Any) -> bool:
    module, _, attribute = target.partition(":")
    cls = type(settings)
    inside = cls.__module__ == module or cls.__module__.startswith(f"{module}.")
    return inside and cls.__qualname__ == attribute


def _field_names(target: Any) -> list[str]:
    return [item.name for item in dataclasses.fields(target) if item.init] if dataclasses.is_dataclass(target) else []


def _check_names(target: Any, kwargs: Mapping[str, Any], text: str) -> None:
    known = _field_names(target)
    for name in kwargs:
        if known and name not in known:
            raise SpecError(f"{text!r}: unknown argument {name!r}{suggestion(name, known)} (known: {', '.join(known)})")


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _word(value: Any, kind: str) -> str:
    if dataclasses.is_dataclass(value):
        text = format(value, kind)
        return text if text.endswith(")") else f"{text}()"
    if isinstance(value, str):
        return value if is_bare(value) else repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_word(part, kind) for part in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_word(part, kind)}" for key, part in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float):
        return repr(float(value)).replace("inf", "1e999")
    raise SpecError(f"a {type(value).__name__} cannot be written as text; give a number, a string, a list or settings")
