"""The Dockerfile as far as it can be checked without an engine: its paths exist, and its commands are valid."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from visionadapt.__main__ import app

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not (ROOT / "Dockerfile").exists(), reason="it lies in the repository, not in the package"
)


def steps(name: str) -> list[str]:
    """The arguments of every instruction of a name."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return [line.removeprefix(f"{name} ") for line in text.splitlines() if line.startswith(f"{name} ")]


def copied() -> list[str]:
    return [word for step in steps("COPY") for word in shlex.split(step)[:-1]]


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for path in copied():
        assert (ROOT / path).exists(), path
        assert any(fnmatch(path, line[1:]) for line in ignored if line.startswith("!")), path


def test_what_the_package_is_built_from_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed | {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]} <= {*copied()}


def test_what_is_installed_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for step in steps("RUN"):
        words = shlex.split(step)
        assert words[:2] == ["pip", "install"] and "-c" in words
        name = words[-1].replace(".[", "visionadapt[")
        assert {*Requirement(name).extras} <= {*extras} and (name in tested or name.startswith("visionadapt["))


def test_the_command_is_one() -> None:
    (entry,), (arguments,) = steps("ENTRYPOINT"), steps("CMD")
    command = json.loads(entry) + json.loads(arguments)
    assert command[:2] == ["python", "-m"]
    _, name = command[2].split(".")
    app.parse_args([name, *command[3:]], exit_on_error=False, print_error=False)
    assert command[command.index("--port") + 1] == steps("EXPOSE")[0]
    (check,) = steps("HEALTHCHECK")
    compile(json.loads(check.partition("CMD ")[2])[2], "HEALTHCHECK", "exec")
