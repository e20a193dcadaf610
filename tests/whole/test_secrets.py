"""No password that a source needs reaches the run folder, the cache or the terminal, whether a run works or fails."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.sources import FolderSource

from ..conftest import SMALL_BACKBONE
from ..sources.serving import Reply, Request, Site, page, serving

CANARY = "canary/5d0a+c7b3=9e"
SECRETS = {"API_TOKEN": f"token {CANARY}", "API_KEY": CANARY, "API_SIGN": f"{CANARY}&sign"}
FORMS = {
    form.encode()
    for value in SECRETS.values()
    for form in (value, quote(value), quote(value, ""), base64.b64encode(value.encode()).decode(), CANARY[:11])
}
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --epochs 2 --precision float32".split()
Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]


def answering(folder: Path, failing: str = "") -> Callable[[Request], Reply]:
    """An API that wants a token, a header and a parameter, and repeats them wherever it can.

    `failing` is `page` or `pictures` for what is refused, or `text` for a page that is no JSON.
    """
    records = list(FolderSource(folder))

    def answer(request: Request) -> Reply:
        headers = {name.lower(): value for name, value in request.headers.items()}
        known = headers.get("authorization") == f"Bearer token {CANARY}" and headers.get("x-api-key") == CANARY
        told = f"{request.path} {request.query} {request.headers}"
        if not known or failing == ("page" if request.path == "/items" else "pictures"):
            return Reply(told.encode(), status=401, headers={"WWW-Authenticate": told.replace("\n", " ")})
        if request.path != "/items":
            return Reply((folder / request.path.removeprefix("/pictures/")).read_bytes())
        assert request.query["sign"] == SECRETS["API_SIGN"]
        if failing == "text":
            return Reply(told.encode())
        start = int(request.query.get("from", "0"))
        echo = {"note": told, "link": f"https://me:{quote(CANARY, '')}@host/?key={quote(CANARY, '')}"}
        rows = [
            {"image": f"pictures/{record.key}?sign={quote(CANARY, '')}", "label": record.label, **echo}
            for record in records[start : start + 8]
        ]
        rows += [{"image": f"https://me:{quote(CANARY, '')}@host/{start}.jpg", "label": "blood", **echo}]
        link = f'</items?from={start + 8}&sign={quote(SECRETS["API_SIGN"], "")}>; rel="next"'
        return page(rows, **({"Link": link} if start + 8 < len(records) else {}))

    return answer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `visionadapt …` in `tmp_path / "work"` with the secrets in the environment; give the exit code and all that
    this process and its workers wrote."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "empty").touch()
    monkeypatch.chdir(tmp_path / "work")

    def started(*tokens: str | Path) -> tuple[int, str]:
        code = shell.run(app, [str(token) for token in tokens])
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return started


def data(site: Site, more: str = "") -> str:
    return (
        f"api({site.url}/items, image=image, label=label, token=API_TOKEN, secret_headers={{X-Api-Key: API_KEY}}, "
        f"secret_parameters={{sign: API_SIGN}}, private=true, retries=0{more})"
    )


def traces(*folders: Path) -> list[str]:
    """Files whose name or content holds a secret in any spelling."""
    files = [path for folder in folders for path in sorted(folder.rglob("*"))]
    assert files
    return [
        str(path)
        for path in files
        if any(form in os.fsencode(path) or (path.is_file() and form in path.read_bytes()) for form in FORMS)
    ]


def is_told(output: str) -> list[bytes]:
    return [form for form in FORMS if form in output.encode()]


@pytest.mark.slow
def test_a_run_keeps_them_to_itself(
    run: Run, tinted_folder: Make, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    folder, work = tinted_folder(count=9), Path.cwd()
    with serving(answering(folder)) as site:
        code, output = run("train", "--data", data(site), "--out", "run", "--workers", 2, *SMALL)
        assert code == 0, output
        stored = json.loads(Path("run/config.json").read_text(encoding="utf-8"))["options"]["data"]
        assert "secret_parameters={'sign': API_SIGN}" in stored
        Path("run/summary.json").unlink()
        for tokens in (
            ("train", "--resume", "run", "--trust-run"),
            ("evaluate", "run", "--data", data(site), "--workers", 0),
            ("report", "run", "--data", data(site)),
            ("audit", data(site), "--out", "audit", "--backbone", SMALL_BACKBONE, "--weights", "none"),
            ("pull", data(site), "--out", "pulled"),
            ("pull", data(site), "--out", "pulled"),
        ):
            code, more = run(*tokens)
            assert code == 0, more
            output += more
    assert not is_told(output + caplog.text) and not traces(work, own_cache)


FAILURES: Mapping[str, tuple[str, str, str]] = {
    "refused": ("page", "", "answers 401 (Unauthorized)"),
    "pictures refused": ("pictures", "", "answers 401 (Unauthorized)"),
    "no JSON": ("text", "", "page 1 is no JSON"),
    "no rows": ("", ", rows=data", "rows=data leads to nothing"),
    "an unknown column": ("", ", group=sender", "has no column 'sender'"),
    "a part that is none": ("", ", split=note", "it must be train, val"),
    "an unknown argument": ("", f", sign='https://me:{CANARY}@host/?key={CANARY}'", "unknown argument 'sign'"),
    "no such variable": ("", ", cursor=a, next=b", "secret_headers={X-Api-Key: …} names is not set"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_run_that_fails_does_not_tell_them(
    case: str, run: Run, tinted_folder: Make, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, more, message = FAILURES[case]
    folder, work = tinted_folder(count=9), Path.cwd()
    if case == "no such variable":
        monkeypatch.delenv("API_KEY")
    with serving(answering(folder, failing)) as site:
        code, output = run("train", "--data", data(site, more), "--out", "run", "--workers", 2, *SMALL)
    assert code == 2 and message in output
    assert not is_told(output) and not traces(work, own_cache)


@pytest.mark.parametrize(
    "text",
    [
        f"api('https://me:{quote(CANARY, '')}@host/items', image=image)",
        f"api('https://host/items?key={quote(CANARY, '')}', image=image)",
        f"api(https://host/items, image=image, token='{CANARY}')",
        f"https://me:{quote(CANARY, '')}@host/items?key={quote(CANARY, '')}",
        f"csv(https://me:{quote(CANARY, '')}@host/labels.csv, image=image)",
    ],
)
def test_a_secret_on_the_command_line_is_refused_unseen(text: str, run: Run) -> None:
    code, output = run("train", "--data", text, "--out", "run")
    assert code == 2 and output.startswith("error: ")
    assert not is_told(output) and not traces(Path.cwd())
