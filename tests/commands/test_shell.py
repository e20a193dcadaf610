"""How a command ends where its output cannot be written as it is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from visionadapt.commands import shell

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which one run, with a name in Hebrew, is listed as damaged."""
    run = tmp_path / "שלום"
    run.mkdir()
    (run / "config.json").write_text('{"format": 1}')
    return tmp_path


def listed(folder: Path, stdout: int, *more: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "visionadapt", "runs", str(folder), *more],
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_names_that_an_encoding_does_not_know_are_escapes(folder: Path) -> None:
    done = listed(folder, subprocess.PIPE, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u05e9\u05dc\u05d5\u05dd" in done.stdout


def test_a_reader_who_has_had_enough_sees_no_traceback(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = listed(folder, writing, "--json")
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(folder: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = listed(folder, full.fileno())
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: there is no space left to write to") and done.stderr.count(b"\n") == 1


def test_the_library_logs_in_silence_and_commands_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import logging, visionadapt; logging.getLogger('visionadapt').warning('unheard')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
    assert (done.stdout, done.stderr) == (b"", b"")
    told = App(name="told")
    told.default(lambda: logging.getLogger("visionadapt").warning("heard"))
    assert shell.run(told, []) == 0
    assert capsys.readouterr() == ("", "heard\n")
    logging.getLogger("visionadapt").warning("unheard")
    assert capsys.readouterr() == ("", "")
