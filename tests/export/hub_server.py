"""A hub on loopback: the endpoints that pushing, loading and data sets use, with repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "c" * 40


@dataclass
class Hub:
    """A running hub: its address, the files of its repositories, which are private, and the requests so far.

    Data sets are called `datasets/ORG/NAME`, with `@` and a branch for any but main; `commits` are those of branches.
    """

    url: str = ""
    commits: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def hub_serving() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()


@contextmanager
def hub_in_use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub that the hub's client asks, with a cache of its own."""
    with hub_serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield running


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/datasets/"):
            self._data_set(path.removeprefix("/api/"))
        else:
            self._file()

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path.startswith("/api/models/") and "/preupload/" in path:
            files = json.loads(body)["files"]
            self._json(
                {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]}
            )
        elif path.startswith("/api/models/") and "/commit/" in path:
            repository = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.hub.files[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{self.hub.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._json({"error": "unknown"}, 404)

    def _create(self, asked: dict[str, object]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else str(asked["name"])
        self.hub.files.setdefault(name, {})
        self.hub.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _data_set(self, path: str) -> None:
        """Tell the commit of a revision, or the files of a commit."""
        self.hub.requests.append(f"GET {self.path}")
        repository, listing, commit = path.partition("/tree/")
        repository, _, revision = repository.partition("/revision/")
        if repository not in self.hub.files:
            self._json({"error": "gone"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif listing:
            files = self.hub.files[self._at(repository, commit)]
            told = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self._json(told)
        elif (revision or "main") in self.hub.commits:
            self._json({"id": repository.removeprefix("datasets/"), "sha": self.hub.commits[revision or "main"]})
        else:
            self._json({"error": "gone"}, 404, {"X-Error-Code": "RevisionNotFound"})

    def _at(self, repository: str, commit: str) -> str:
        """The key of a repository's files at a commit."""
        branch = next((name for name, each in self.hub.commits.items() if commit in {name, each}), "main")
        return repository if branch == "main" else f"{repository}@{branch}"

    def _file(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        repository, found, rest = unquote(urlsplit(self.path).path).strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        repository = self._at(repository, revision)
        if not found:
            self._json({"error": "unknown"}, 404)
        elif repository not in self.hub.files:
            self._json({"error": "gone"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif name not in self.hub.files[repository]:
            self._json({"error": "gone"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = self.hub.files[repository][name]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            commit = self.hub.commits.get(revision, revision)
            self._reply(content, 200, {"X-Repo-Commit": commit, "ETag": tag})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._reply(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _reply(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
