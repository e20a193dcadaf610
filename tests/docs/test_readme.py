"""The README: short, with commands, snippets and a picture that work, and a map that fits the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from .samples import few_samples

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "visionadapt"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
TREE = re.findall(r"^[├└]── (.*)$", README, flags=re.MULTILINE)
COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m visionadapt.train --data sample_images",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && PATH=\"$PWD/.venv/bin:$PATH\""
    " sh -c 'ruff check . && ruff format --check . && mypy && python -m pytest'",
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    few_samples(tmp_path, train=4, val=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.slow] * ("va.fit" in code or "va.train" in code))
        for number, code in enumerate(SNIPPETS)
    ],
)
def test_a_snippet_runs(number: int, checkout: Path) -> None:
    exec(compile(SNIPPETS[number], f"README.md, snippet {number + 1}", "exec"), {})


def test_it_is_short_and_has_both_commands_on_lines_of_their_own() -> None:
    assert len(README.split()) <= 1300
    for command in COMMANDS:
        assert f"```sh\n{command}\n```" in README


def test_the_image_of_a_report_is_small() -> None:
    path = ROOT / "docs/images/report.png"
    assert path.stat().st_size <= 250_000
    with Image.open(path) as image:
        assert image.width >= 1000


def test_the_tree_has_every_room_once_and_only_files_that_exist() -> None:
    assert len(TREE) + 1 <= 20
    named = [room for line in TREE for room in re.findall(r"(\w+)/", line.split("  ")[0])]
    assert sorted(named) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    for line in TREE:
        rooms = [PACKAGE / room for room in re.findall(r"(\w+)/", line.split("  ")[0])] or [PACKAGE]
        for name in re.findall(r"\w+\.py\b|\w+(?=/)", line.partition("  ")[2] if rooms != [PACKAGE] else line):
            assert any(list(room.rglob(name)) for room in rooms), (line, name)


@pytest.mark.slow
def test_the_architecture_page_is_what_the_code_says(tmp_path: Path) -> None:
    code = "import runpy, sys; sys.stdout.write(runpy.run_path(sys.argv[1])['page']())"
    command = [sys.executable, "-c", code, ROOT / "docs" / "build_architecture.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert printed.stdout == page, "run python docs/build_architecture.py"
