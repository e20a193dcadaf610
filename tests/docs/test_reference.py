"""The API reference: built without a warning, complete, and of docstrings that fit what they describe."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import visionadapt

ROOT = Path(__file__).parents[2]
PACKAGES = ("adapters", "auditing", "backbones", "images", "report", "sources", "tasks", "trackers")


def public() -> Iterator[tuple[str, str, Any]]:
    """Module, name and object of every public class and function."""
    for module_name in ("visionadapt", *(f"visionadapt.{name}" for name in PACKAGES)):
        module = importlib.import_module(module_name)
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) or inspect.isfunction(found):
                yield module_name, name, found


def described() -> Iterator[tuple[str, Any]]:
    """Every public function, class, and public method of a class, that is visionadapt's own."""
    for module, name, found in public():
        yield f"{module}.{name}", found
        if inspect.isclass(found):
            for key, value in vars(found).items():
                inner = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
                if inspect.isfunction(inner) and not key.startswith("_") and inner.__module__.startswith("visionadapt"):
                    yield f"{module}.{name}.{key}", inner


THINGS = dict(described())


@pytest.mark.slow
def test_it_builds_without_a_warning_and_has_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", ROOT / "docs" / "build_reference.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    for module, name, _ in public():
        page = (tmp_path / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8")
        assert f'<section id="{name}">' in page, f"{module}.{name}"
    errors = (tmp_path / "visionadapt" / "errors.html").read_text(encoding="utf-8")
    assert '<section id="ImageError">' in errors


@pytest.mark.parametrize("name", THINGS)
def test_a_public_name_is_described_as_it_is(name: str) -> None:
    found = THINGS[name]
    text = inspect.getdoc(found)
    assert text, f"{name} has no docstring"
    if "Args:" in text and inspect.isfunction(found):
        named = set(re.findall(r"^    (?! )([\w, *]+):", section(text, "Args"), flags=re.MULTILINE))
        told = {argument.strip(" *") for names in named for argument in names.split(",")}
        assert told <= set(inspect.signature(found).parameters), f"{name} has no such arguments"
    for raised in re.findall(r"^    ([\w, ]+):", section(text, "Raises"), flags=re.MULTILINE):
        for error in raised.split(", "):
            assert hasattr(visionadapt.errors, error) or hasattr(builtins, error), f"there is no {error}"


def section(text: str, title: str) -> str:
    """The indented lines below `title:`."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)*)", text, flags=re.MULTILINE)
    return found.group(1) if found else ""
