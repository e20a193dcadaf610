"""A PostgreSQL server of the tests' own: started from Debian's programs in a temporary folder, stopped behind them."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

OWNER = "owner"
_DATABASE = "postgres"


@dataclass(frozen=True)
class Server:
    """A running server; its owner may do everything, by a password."""

    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """The URL of its database for SQLAlchemy, without the password."""
        return f"postgresql+psycopg://{OWNER}@127.0.0.1:{self.port}/{_DATABASE}"

    def clear(self) -> None:
        """Take everything out of the database, whoever still holds it."""
        settings = f"host=127.0.0.1 port={self.port} user={OWNER} dbname={_DATABASE}"
        with psycopg.connect(settings, password=self.password, autocommit=True) as connection:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")


def programs() -> Path | None:
    """The folder with the server's programs, of the newest version; None where there is none."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in found), key=lambda path: float(path.parts[-2]), default=None)


@contextmanager
def running(binaries: Path) -> Iterator[Server]:
    """Start a server on a free port, and stop it at the end. The programs refuse root: then the user is `postgres`."""
    folder = Path(tempfile.mkdtemp(prefix="visionadapt-postgresql-"))
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    server = Server(_free_port(), secrets.token_urlsafe(12))

    def run(program: str, *arguments: str) -> None:
        command = [binaries / program, "-D", folder / "data", *arguments]
        with (folder / "output").open("w+") as output:
            code = subprocess.run(command, stdout=output, stderr=output, cwd=folder, check=False, **user).returncode
            output.seek(0)
            assert code == 0, output.read()

    try:
        (folder / "password").write_text(server.password)
        owner = ("-U", OWNER, "--pwfile", str(folder / "password"), "-A", "scram-sha-256")
        run("initdb", "--no-sync", "-E", "UTF8", "--locale", "C", *owner)
        options = f"-c listen_addresses=127.0.0.1 -p {server.port} -k '' -c fsync=off -c jit=off"
        run("pg_ctl", "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield server
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
