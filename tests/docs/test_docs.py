"""The documentation: a page's snippets run one after the other, next to a copy of the sample pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from visionadapt.core.records import Record
from visionadapt.errors import ImageError
from visionadapt.sources.opening import open_source

ROOT = Path(__file__).parents[2]


def snippets(page: str) -> list[str]:
    text = (ROOT / "docs" / "guides" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def run_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a page's snippets; give the lines that they print."""

    def run(page: str) -> list[str]:
        for name in ("fish", "mug"):
            shutil.copytree(ROOT / "sample_images/train" / name, tmp_path / "sample_images/train" / name)
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {"__name__": "__main__"}
        for number, code in enumerate(snippets(page), 1):
            exec(compile(code, f"docs/guides/{page}, snippet {number}", "exec", dont_inherit=True), names)
        return capsys.readouterr().out.splitlines()

    return run


def test_the_page_of_sources_runs(run_page: Any) -> None:
    lines = run_page("sources.md")
    assert lines[0] == "('fish', 'mug')"
    assert "fish/palette.png fish " in lines
    assert "mug/palette.png None dropped: its label is 'Not sure' (line 3)" in lines
    assert "fish/missing.jpg fish no such file (line 8)" in lines
    assert any(line.startswith("('fish', 'mug') [('sample_images/train/fish/cmyk.jpg', ") for line in lines)
    assert any("no group of 4 on both sides" in line for line in lines)
    assert lines[lines.index("fish/palette.png fish") :][:3] == [
        "fish/palette.png fish",
        "mug/palette.png mug",
        "fish/palette.png None",
    ]
    assert "('mug/2-anna-val.png', 'anna', 'val')" in lines
    assert lines[-3:] == ["8 5 3", "0", "fish/palette.png train P"]


def test_the_page_of_own_sources_runs(run_page: Any) -> None:
    (line,) = run_page("own-source.md")
    assert line.startswith("('fish', 'mug') torch.Size([4, 3, 224, 224]) ['fish/")


@pytest.mark.slow
def test_the_page_of_several_labels_runs(run_page: Any) -> None:
    epoch, thresholds = run_page("several-labels.md")
    assert epoch.split()[0] == "val_mean_average_precision"
    assert thresholds == "torch.Size([4])"


def test_the_source_of_ones_own_has_twenty_lines_and_works_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = snippets("own-source.md")[0]
    assert len([line for line in code.splitlines() if line]) <= 20
    (tmp_path / "documented_own.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    archive = shutil.make_archive(str(tmp_path / "pictures"), "zip", ROOT / "sample_images/train", "fish")
    source = open_source(f"documented_own:ZipSource({archive})")
    assert source.classes == ("fish",)
    for record in source:
        assert source.read(record) == (ROOT / "sample_images/train" / record.key).read_bytes()
    with pytest.raises(ImageError, match=r"none\.jpg: cannot be read"):
        source.read(Record("none.jpg"))
