"""The guide to audits: its commands and snippets run one after the other, next to sample images."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from visionadapt.auditing import KINDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guides" / "audit.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `photos/` and a table of them, to work in."""
    for name in ("fish", "mug"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for path in sorted((ROOT / "sample_images/train" / name).iterdir())[:10]:
            shutil.copy(path, tmp_path / "photos" / name)
    files = sorted(path.relative_to(tmp_path / "photos").as_posix() for path in tmp_path.glob("photos/*/*"))
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(name, name.partition("/")[0].title(), number) for number, name in enumerate(files)]
        csv.writer(file).writerows([("file", "label", "sender"), *rows])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run(visionadapt: Callable[..., tuple[int, str]], checkout: Path) -> None:
    commands = re.findall(r"^python -m visionadapt\.(.*)$", TEXT, flags=re.MULTILINE)
    assert len(commands) == 7
    for line in commands:
        training = ("--adapter", "none", "--epochs", "1") if line.startswith("train") else ()
        code, output = visionadapt(*shlex.split(line), "--workers", "0", *training)
        assert code in (0, 1), output
        if "--shard" not in line:
            assert "0 rows dropped" in output if training else "images: 20 of 20 rows, 2 classes" in output
    assert (checkout / "audits/photos/audit.html").exists()


def test_the_snippets_run(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(compile(code, "docs/guides/audit.md", "exec", dont_inherit=True), names)
    assert capsys.readouterr().out.startswith("20 ")
    assert (checkout / "audits/second/findings.parquet").exists()


def test_every_kind_is_listed_with_its_severity() -> None:
    lines = re.findall(r"^\| (`.*?) \| (\w+) \|", TEXT, flags=re.MULTILINE)
    told = {kind: weight for kinds, weight in lines for kind in re.findall(r"`(\w+)`", kinds)}
    assert told == {kind: about.severity for kind, about in KINDS.items()}
