"""`visionadapt COMMAND` and `python -m visionadapt.COMMAND` are the same, for every command."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyte
import pytest

from visionadapt.__main__ import COMMANDS
from visionadapt.core.settings import TrainingSettings
from visionadapt.runs.options import DEFAULTS, RENAMED, RunOptions, divide, read_options
from visionadapt.system import first_line

from .. import forked

ROOT = Path(__file__).parents[2]


def ran(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
    )


def forked_run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """As `ran`, without loading anything first."""
    return forked.run(module, *words, environment={**os.environ, "COLUMNS": "200"})


def test_every_module_with_a_parser_is_a_command() -> None:
    with_parser = {
        path.parent.name if path.stem == "__main__" else path.stem
        for path in (*(ROOT / "visionadapt").glob("[!_]*.py"), *(ROOT / "visionadapt").glob("*/__main__.py"))
        if any(
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "app"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
    }
    assert with_parser == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_both_ways_have_the_same_help(command: str) -> None:
    by_module, by_word = forked_run(f"visionadapt.{command}", "--help"), forked_run("visionadapt", command, "--help")
    assert (by_module.returncode, by_module.stderr) == (by_word.returncode, by_word.stderr) == (0, "")
    assert by_module.stdout.replace(f"Usage: {command}", f"Usage: visionadapt {command}", 1) == by_word.stdout
    assert f"python -m visionadapt.{command}" in by_module.stdout.partition("Examples:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_both_ways_refuse_an_unknown_option(command: str) -> None:
    by_module = forked_run(f"visionadapt.{command}", "--no-such")
    by_word = forked_run("visionadapt", command, "--no-such")
    assert (by_module.returncode, by_module.stdout) == (by_word.returncode, by_word.stdout) == (2, "")
    assert by_module.stderr == by_word.stderr
    assert by_module.stderr.startswith("error: ") and by_module.stderr.count("\n") == 1


def test_an_unknown_command_is_answered_with_all_that_there_are() -> None:
    done = forked_run("visionadapt", "trian")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "did you mean 'train'" in done.stderr
    assert all(command in done.stderr for command in COMMANDS)


def test_help_has_no_line_breaks_of_its_own() -> None:
    words = forked_run("visionadapt.train", "--help").stdout.replace("│", " ").split()
    assert "They share the output of the frozen layers." in " ".join(words)
    lines = [line.strip("│ ") for line in forked_run("visionadapt.train", "--help").stdout.splitlines()]
    assert "output" not in lines


def test_the_list_of_commands_has_each_with_its_purpose() -> None:
    listed = forked_run("visionadapt", "--help").stdout
    for command in COMMANDS:
        line = next(line for line in listed.splitlines() if line.strip("│ ").startswith(f"{command} "))
        assert len(line.strip("│ ").removeprefix(command).split()) > 2


@pytest.mark.slow
def test_the_cache_is_really_cleared(tmp_path: Path) -> None:
    entry = tmp_path / "cache" / "0123456789abcdef"
    entry.mkdir(parents=True)
    (entry / "space.json").write_text(json.dumps({"backbone": "net", "cut": 1, "precision": "uint8"}))
    (entry / "x.bin").write_bytes(bytes(1000))
    shown = ran("visionadapt.cache", "--cache", str(tmp_path / "cache"))
    assert shown.returncode == 0 and entry.name in shown.stderr
    cleared = ran("visionadapt.cache", "--clear", VISIONADAPT_CACHE=str(tmp_path / "cache"))
    assert cleared.returncode == 0, cleared.stderr
    assert not entry.exists()


@pytest.mark.slow
def test_runs_are_really_listed(tmp_path: Path) -> None:
    run = tmp_path / "first"
    run.mkdir()
    (run / "config.json").write_text('{"format": 1}')
    listed = ran("visionadapt.runs", str(tmp_path), "--quiet")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, f"{run}\n", "")


@pytest.mark.parametrize("old", RENAMED)
def test_a_former_name_of_an_option_still_works(old: str, tmp_path: Path) -> None:
    option = f"--{old}".replace("_", "-")
    done = forked_run("visionadapt.train", f"{option}=95", "--data", str(tmp_path))
    assert done.returncode == 2
    assert f"--{RENAMED[old]}".replace("_", "-") in done.stderr
    assert option not in forked_run("visionadapt.train", "--help").stdout
    stored = read_options({"options": {old: 0.9}, "settings": {"epochs": 3}})
    options, settings = divide({**DEFAULTS, **stored})
    assert getattr(options, RENAMED[old]) == 0.9
    assert (options, settings) == divide(stored)
    before = {"head": "trained", "early_stopping": False}  # what runs did that do not say so
    assert settings == TrainingSettings(epochs=3, **before) and isinstance(options, RunOptions)


@pytest.mark.parametrize(
    "arguments", [["train", "photos"], ["evaluate", "run", "--data", "photos"], ["audit", "photos"]]
)
def test_the_first_line_comes_before_pytorch_is_loaded(arguments: list[str]) -> None:
    program = (
        "import runpy, sys\n"
        "class End:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': sys.exit(77)\n"
        "sys.meta_path.insert(0, End())\n"
        f"sys.argv = {arguments!r}\n"
        f"runpy.run_module('visionadapt.{arguments[0]}', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 77
    assert "PyTorch" in done.stderr and done.stdout == ""


def in_a_terminal(tmp_path: Path, *words: str, without: str = "") -> list[str]:
    """Run a command in a terminal, to the import of a module if one is given; return the lines on its screen."""
    if without:
        (tmp_path / f"{without}.py").write_text("import os\nos._exit(0)\n")
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", *words], stderr=slave, stdout=slave, env=environment)
    os.close(slave)
    screen = pyte.Screen(120, 20)
    stream = pyte.ByteStream(screen)
    try:
        while data := os.read(master, 65_536):
            stream.feed(data)
    except OSError:  # the command has ended
        pass
    process.wait()
    os.close(master)
    return [line.rstrip() for line in screen.display if line.strip()]


@pytest.mark.parametrize("words", [("visionadapt.train", "photos"), ("visionadapt", "audit", "photos")])
def test_in_a_terminal_the_first_line_comes_before_the_command_line_is_parsed(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    assert in_a_terminal(tmp_path, *words, without="cyclopts") == [first_line.LINE]
    assert in_a_terminal(tmp_path, *words, "--quiet", without="cyclopts") == []


@pytest.mark.slow
def test_in_a_terminal_the_first_line_gives_way_to_an_error(tmp_path: Path) -> None:
    (line,) = in_a_terminal(tmp_path, "visionadapt.train", "--no-such")
    assert line.startswith("error: ")
    first, second = in_a_terminal(tmp_path, "visionadapt.train", str(tmp_path / "nothing"))
    assert first == first_line.LINE and second.startswith("error: ")


def test_every_command_with_a_first_line_is_a_command() -> None:
    assert set(COMMANDS) >= first_line.COMMANDS
