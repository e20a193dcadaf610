"""Build the API reference from the docstrings: `python docs/build_reference.py` fills docs/_build/."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import typing
from pathlib import Path

import pdoc
from pdoc import render

import visionadapt

FURTHER = (
    "auditing",
    "commands.training_run",
    "console.reporter",
    "core.records",
    "data.splits",
    "evaluation.evaluate",
    "evaluation.evaluation",
    "evaluation.single",
    "model.heatmaps",
    "prediction.calibration",
    "pull.pull",
    "report",
    "runs.options",
    "runs.saved",
    "trackers",
)
"""Modules that the pages of docs/ take something from, in addition to what `visionadapt` itself provides."""


def build(folder: Path) -> None:
    """Write an HTML page for `visionadapt`, each of its public packages and each of `FURTHER`, and an index."""
    further = [f"visionadapt.{name}" for name in FURTHER]
    for name in ("visionadapt", *further):
        importlib.import_module(name)
    _import_for_annotations()
    _resolve_constructors()
    render.configure(docformat="google")
    pdoc.pdoc("visionadapt", *further, *_inner(further), output_directory=folder)


def _inner(pages: list[str]) -> list[str]:
    """Patterns that leave out the modules inside public packages: their public names are on the package's page."""
    public = {name for name in pages if name.count(".") == 1} | {f"visionadapt.{name}" for name in visionadapt.__all__}
    return [rf"!{re.escape(name)}\..+" for name in sorted(public) if hasattr(sys.modules.get(name), "__path__")]


def _import_for_annotations() -> None:
    """Import what modules import `if TYPE_CHECKING` alone: what annotations name, and what packages hand out lazily."""
    seen: set[str] = set()
    while fresh := [name for name in sys.modules if name.partition(".")[0] == "visionadapt" and name not in seen]:
        seen.update(fresh)
        for module in [sys.modules[name] for name in fresh]:
            for node in ast.parse(inspect.getsource(module)).body:
                if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                    exec(compile(ast.Module(node.body, []), str(module.__file__), "exec"), vars(module))


def _resolve_constructors() -> None:
    """Resolve the types of generated constructors: a named tuple's has no module, a dataclass inherits fields."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "visionadapt"]:
        for found in vars(sys.modules[name]).values():
            if inspect.isclass(found) and hasattr(found, "_fields") and found.__module__ == name:
                found.__new__.__annotations__ = typing.get_type_hints(found)
            elif dataclasses.is_dataclass(found) and inspect.isclass(found) and found.__module__ == name:
                hints = typing.get_type_hints(found)
                own = vars(found)["__init__"].__annotations__
                own.update({field: hints[field] for field in own if field in hints})


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "_build")
