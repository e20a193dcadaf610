"""A source of the user's own, by its name on the command line: out of a file, or a module in the working folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from visionadapt.core import spec
from visionadapt.errors import SourceError, SpecError
from visionadapt.sources.opening import open_source

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--epochs", "1", "--adapter", "none")

SHOP = """
from dataclasses import dataclass
from pathlib import Path

from visionadapt.core.records import Record

{decorator}
class Shop:
    {body}

    @property
    def classes(self):
        return tuple(sorted(path.name for path in Path(self.root).iterdir()))

    def __iter__(self):
        for path in sorted(Path(self.root).glob("*/*")):
            yield Record(path.relative_to(self.root).as_posix(), (path.parent.name,))

    def read(self, record):
        return (Path(self.root) / record.key).read_bytes()

class NoShop:
    classes = ()
"""
DATACLASS = SHOP.format(decorator="@dataclass(frozen=True)", body="root: str")
PLAIN = SHOP.format(decorator="", body="def __init__(self, root):\n        self.root = root")


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder of this test's own, and forget what was imported there."""
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "code"),
    [
        ("own_shop_a.py", "own_shop_a.py:Shop", DATACLASS),
        ("deep/own_shop_b.py", "deep/own_shop_b.py:Shop", DATACLASS),
        ("own_shop_c.py", "own_shop_c:Shop", DATACLASS),
        ("own_shops/d.py", "own_shops.d:Shop", PLAIN),
        ("own_shop_e.py", "own_shop_e.py:Shop", PLAIN),
    ],
)
def test_it_is_trained_on_in_workers_and_a_run_goes_on_when_it_is_named_again(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, module: str, name: str, code: str
) -> None:
    data, file = tinted_folder(count=4), tmp_path / module
    file.parent.mkdir(exist_ok=True)
    file.write_text(code)
    workers = "2" if code == DATACLASS else "0"
    code_, output = visionadapt("train", "--data", f"{name}(data)", "--out", "run", *SMALL, "--workers", workers)
    assert code_ == 0, output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["images"]["used"] == 8
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["options"]["data"]
    expected = f"{file}:Shop" if name.endswith(".py:Shop") and code == DATACLASS else name
    assert stored == f"{expected}(data)"
    (tmp_path / "run" / "summary.json").unlink()
    code_, output = visionadapt("train", "--resume", "run")
    assert code_ == 2 and f"--data '{stored}'" in output and "--trust-run" in output
    code_, output = visionadapt("train", "--resume", "run", "--data", stored)
    assert code_ == 0, output
    shutil.rmtree(data)


def test_text_and_object_are_two_forms_of_one_thing(tmp_path: Path) -> None:
    (tmp_path / "own_shop_f.py").write_text(DATACLASS)
    source = open_source("own_shop_f.py:Shop(data)")
    text = spec.format(source, "source")
    assert text == f"{tmp_path}/own_shop_f.py:Shop(data)"
    assert spec.parse(text, "source", allow_import=True) == source
    with pytest.raises(SpecError, match="own_shop_f"):
        spec.parse(text, "source")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own_shop_g.py:Shop(data)", r"cannot be imported \(no such file: .*own_shop_g\.py\)"),
        ("json.py:Shop(data)", r"another module is called json; rename json\.py"),
        ("own_shop_h.py:Shp(data)", "cannot be imported .*Shp"),
        ("own_shop_h.py:Shop(data, 3)", "the arguments do not fit"),
        ("own_shop_h.py:Shop(rot=data)", "unknown argument 'rot'; did you mean 'root'"),
        ("no_such_module:Shop(data)", "cannot be imported"),
        ("own_shop_h.py:NoShop()", "NoShop is no source, for it has no __iter__ and no read"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    for name in ("own_shop_h.py", "json.py"):
        (tmp_path / name).write_text(DATACLASS)
    with pytest.raises((SpecError, SourceError), match=message) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_with_parentheses_is_still_a_folder() -> None:
    for text in ("photos/old (1)", "my.py/x(1)", "missing (1)/a.py:b"):
        with pytest.raises(SourceError, match="no such folder"):
            open_source(text)
