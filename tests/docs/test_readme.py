"""The README's Python snippets run as they stand, one after the other, next to a copy of the sample pictures."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "sample_images", tmp_path / "sample_images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(number: int, checkout: Path) -> None:
    exec(compile(SNIPPETS[number], f"README.md, snippet {number + 1}", "exec"), {})


def test_the_architecture_page_is_what_the_code_says(tmp_path: Path) -> None:
    code = "import runpy, sys; sys.stdout.write(runpy.run_path(sys.argv[1])['page']())"
    command = [sys.executable, "-c", code, ROOT / "docs" / "build_architecture.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert printed.stdout == page, "run python docs/build_architecture.py"
