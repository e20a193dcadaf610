"""Locks on files, and a system that has none of POSIX's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from visionadapt.system.locks import lock
from visionadapt.system.storage import remove_unfinished, replacing, write_bytes

ROOT = Path(__file__).parents[2]


def test_a_lock_is_alone_or_shared(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as first, (tmp_path / "a").open("a") as second:
        assert lock(first)
        assert not lock(second, wait=False) and not lock(second, shared=True, wait=False)
        assert lock(first, shared=True)
        assert lock(second, shared=True, wait=False)


def test_a_file_that_is_being_written_is_no_rest(tmp_path: Path) -> None:
    (tmp_path / ".writing-0").write_bytes(b"rest")
    with replacing(tmp_path / "a") as file:
        remove_unfinished(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        file.write(b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


REMOVES = """
import sys
from pathlib import Path
from visionadapt.system.storage import remove_unfinished
print("ready", flush=True)
while True:
    remove_unfinished(Path(sys.argv[1]))
"""


def test_a_file_can_be_written_while_another_process_looks_for_rests(tmp_path: Path) -> None:
    """It may remove the file between its making and its lock."""
    command = [sys.executable, "-c", REMOVES, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as other:
        assert other.stdout is not None and other.stdout.readline() == b"ready\n"
        try:
            for number in range(1_000):
                write_bytes(tmp_path / "a", b"%d" % number)
        finally:
            other.kill()
    assert (tmp_path / "a").read_bytes() == b"999"


ELSEWHERE = """
import os, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
import visionadapt as va
from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.system.locks import HAS_LOCKS
assert not HAS_LOCKS
words = "--backbone test_efficientnet --weights none --image-size 32 --epochs 1 --adapter none --workers 0 --quiet"
assert shell.run(app, ["train", "--data", sys.argv[1], "--out", "run", "--cache", "cache", *words.split()]) == 0
assert shell.run(app, ["predict", "run", sys.argv[1], "--out", "table.csv", "--workers", "0", "--quiet"]) == 0
assert shell.run(app, ["cache", "--cache", "cache", "--clear"]) == 0
print(va.load("run").predict(sys.argv[1] + "/blood/0.png").label in ("blood", "grass"))
"""


@pytest.mark.slow
def test_without_posix_it_imports_trains_and_predicts(tinted_folder: object, tmp_path: Path) -> None:
    data = tinted_folder(count=4)  # type: ignore[operator]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(data)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["True"]), done.stderr
    assert (tmp_path / "table.csv").exists() and not list(tmp_path.rglob(".writing-*"))
