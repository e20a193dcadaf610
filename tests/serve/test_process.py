"""The command as a process on this machine: an answer, the ways to end it, and mistakes as one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

import visionadapt as va

from ..forked import Command
from .conftest import image

Run = Callable[..., tuple[int, str]]


@contextmanager
def serving(*words: str) -> Iterator[tuple[Command, str]]:
    """Start the command on a free port; yield the process and its address."""
    process = Command("visionadapt.serve", [*words, "--port", "0", "--json"], {**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        ready = json.loads(process.first_line() or "{}")
        assert ready, process.communicate()
        yield process, ready["address"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_answers_until_a_signal_ends_it(folders: dict[str, Path], number: signal.Signals, code: int) -> None:
    with serving(str(folders["lora"]), "--seconds", "1") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        (row,) = httpx.post(f"{address}/predict", content=image(1), timeout=60).json()["predictions"]
        assert row["label"] == va.load(folders["lora"]).predict(image(1)).label
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as silent, socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            cut = socket.create_connection((host, int(port)))
            cut.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            cut.close()
            slow.settimeout(30)
            silent.settimeout(30)
            assert b" 408 " in slow.recv(1000).splitlines()[0]
            assert silent.recv(1000) == b""
        assert httpx.get(f"{address}/health", timeout=60).status_code == 200
        process.send_signal(number)
        assert process.wait(60) == code
        told = process.communicate()[1]
        assert "Traceback" not in told and "error" not in told and told.endswith("stopped\n")


def test_a_request_in_progress_is_answered_before_it_ends(folders: dict[str, Path]) -> None:
    data = image(1)
    with serving(str(folders["probe"])) as (process, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.settimeout(60)
            client.sendall(f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode())
            client.sendall(data[:100])
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            client.sendall(data[100:])
            assert b" 200 " in client.recv(1000).splitlines()[0]
        assert process.wait(60) == 143


def test_a_port_that_is_taken_is_one_line(folders: dict[str, Path], visionadapt: Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, output = visionadapt("serve", folders["probe"], "--port", other.getsockname()[1])
    assert code == 2
    assert "--port" in output.splitlines()[-1] and "taken" in output.splitlines()[-1]


@pytest.mark.parametrize(
    "words", [["no-such-run"], ["RUN", "RUN"], ["RUN", "--host", "192.0.2.1"], ["RUN", "--seconds", "0"]]
)
def test_mistakes_are_one_line(folders: dict[str, Path], visionadapt: Run, words: list[str]) -> None:
    code, output = visionadapt(
        "serve", *(str(folders["probe"]) if word == "RUN" else word for word in words), "--port", 0
    )
    assert code == 2
    assert "Traceback" not in output and output.splitlines()[-1].startswith("error: ")


def test_missing_libraries_are_named(visionadapt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, output = visionadapt("serve", "run")
    assert code == 2 and "uvicorn" in output and "visionadapt[serve]" in output
