"""Settings as text: what `format` writes, `parse` reads; nothing in a text is ever evaluated."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from visionadapt.adapters import LoRA
from visionadapt.core import spec
from visionadapt.core.spec_syntax import Call, read
from visionadapt.errors import SpecError
from visionadapt.images import ResizeAdapter
from visionadapt.sources import FileSource, FolderSource


@dataclass(frozen=True)
class Everything:
    """Settings of every kind of field that a text can hold."""

    first: Any
    word: Any = "word"
    values: tuple[Any, ...] = ()
    table: Mapping[str, Any] = field(default_factory=dict)
    inner: Any = None


@dataclass(frozen=True)
class Outer:
    @dataclass(frozen=True)
    class Nested:
        rank: int = 1


@dataclass(frozen=True, kw_only=True)
class Named:
    path: str


NUMBERS_AS_TEXTS = st.sampled_from(
    ["1", "-1", "1e5", "1.5", "None", "True", "False", "1_0", ".5", "0x1", "1e999", "+3"]
)
HARD_TEXTS = st.text(alphabet=st.sampled_from("ab1.,:=()[]{}'\"\\ \n\r\t\0\x1f\x85é\u2028\udcff"), max_size=8)
TEXTS = st.one_of(st.text(max_size=12), HARD_TEXTS, NUMBERS_AS_TEXTS)
LEAVES = st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(TEXTS, st.integers(), st.none()), inner, max_size=3),
        st.builds(LoRA, rank=st.integers(1, 64), blocks=TEXTS.filter(bool)),
    ),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.builds(Everything, VALUES, VALUES, st.lists(VALUES, max_size=2).map(tuple)))
@example(Everything(True, 1, (1.0, LoRA(4, dropout=0.5)), {"a": False, "b": LoRA(2)}, LoRA(blocks="last:1")))
def test_what_is_written_is_read_back(written: Everything) -> None:
    read = spec.parse(spec.format(written, "adapter"), "adapter", allow_import=True)
    assert read == written
    assert repr(read) == repr(written)


@pytest.mark.slow
@given(TEXTS)
def test_any_path_survives(name: str) -> None:
    written = Everything(name, word=name)
    assert spec.parse(spec.format(written, "source"), "source", allow_import=True) == written


@pytest.mark.parametrize(
    ("kind", "written", "text"),
    [
        ("adapter", LoRA(), "lora"),
        ("adapter", LoRA(rank=4, rows="qkv"), "lora(rank=4, rows=qkv)"),
        ("adapter", LoRA(blocks="last:6", alpha=0.5), "lora(blocks=last:6, alpha=0.5)"),
        ("resize", ResizeAdapter(224, "letterbox"), "letterbox"),
        ("resize", ResizeAdapter((200, 300), "squash"), "squash(size=[200, 300])"),
        ("source", Named(path="x"), f"{__name__}:Named(path=x)"),
        ("adapter", Outer.Nested(3), f"{__name__}:Outer.Nested(rank=3)"),
    ],
)
def test_written_texts(kind: str, written: Any, text: str) -> None:
    assert spec.format(written, kind) == text
    assert spec.parse(text, kind, allow_import=True) == written


def test_a_folder_source_round_trips(tmp_path: Path) -> None:
    for name in ("plain", "with, comma (and) 'quotes'", "2024", "naïve"):
        (tmp_path / name).mkdir()
        source = FolderSource(tmp_path / name)
        assert spec.parse(spec.format(source, "source"), "source") == source


def test_files_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b c.jpg", "1"):
        Path(name).touch()
    source = FileSource(["a.jpg", "b c.jpg", "1"])
    assert spec.format(source, "source") == "files([a.jpg, b c.jpg, '1'])"
    assert spec.parse("files([a.jpg, b c.jpg, '1'])", "source") == source


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("lora", Call("lora")),
        (" lora ( ) ", Call("lora")),
        ("a(1, -2.5, x=1e-3,)", Call("a", (1, -2.5), {"x": 0.001})),
        ("a(labels.csv, image=file name)", Call("a", ("labels.csv",), {"image": "file name"})),
        ("a(C:/x/y.csv)", Call("a", ("C:/x/y.csv",))),
        ("a(True, None, true)", Call("a", (True, None, "true"))),
        ("a(2024-01-05, 1.2.3, 007)", Call("a", ("2024-01-05", "1.2.3", "007"))),
        ("a(['x, y', [], [1]])", Call("a", (("x, y", (), (1,)),))),
        ("a({b c: 1, 'd:': {}})", Call("a", ({"b c": 1, "d:": {}},))),
        (r"a('it\'s', \"q\")".replace('\\"', '"'), Call("a", ("it's", "q"))),
        ("a(b(c=1), d())", Call("a", (Call("b", (), {"c": 1}), Call("d")))),
        ("my.module:Name(rank=4)", Call("my.module:Name", (), {"rank": 4})),
    ],
)
def test_syntax(text: str, call: Call) -> None:
    assert read(text) == call


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a name is missing (at character 1)"),
        ("(1)", "a name is missing (at character 1)"),
        ("a(", "a value is missing (at character 3)"),
        ("a(1", "',' or ')' is missing (at character 4)"),
        ("a([1", "',' or ']' is missing"),
        ("a({b", "':' is missing"),
        ("a({b: 1", "',' or '}' is missing"),
        ("a({: 1})", "a key is missing"),
        ("a(,)", "a value is missing"),
        ("a(x=)", "a value is missing"),
        ("a(x=1, 2)", "without a name"),
        ("a(x=1, x=2)", "'x' is given twice"),
        ("a('b)", "a quotation mark is not closed"),
        (r"a('\x1')", "a quoted text has a wrong escape"),
        (r"a('C:\data')", "a quoted text has a wrong escape"),
        ("a(1) b", "after the end"),
        ("a)", "after the end"),
        ("a(b=c=d)", "',' or ')' is missing"),
        ("a(" * 5000, "32 brackets"),
        ("[" * 5000, "a name is missing"),
        ("a(" + "[" * 5000, "32 brackets"),
        ("a(" + "{b:" * 5000, "32 brackets"),
    ],
)
def test_errors_say_what_and_where(text: str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.one_of(st.text(max_size=60), st.text(alphabet="ab1(),[]{}:='\"\\ .+-e_\0", max_size=40)))
@example("a" + " " * 3000)
@example("a(" + "b " * 2000)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        read(text)
    except SpecError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "lora(rank=__import__('os').system('touch {marker}'))",
        "lora(rank=os.system(touch {marker}))",
        "lora(rank=lambda: 1)",
        "lora(rank=[x for x in (1, 2)])",
        "lora(rank=1+1)",
        "lora(rank=f'{{1}}')",
        "os:system('touch {marker}')",
        "lora(rank=os:system('touch {marker}'))",
    ],
)
def test_nothing_is_evaluated(text: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(SpecError):
        spec.parse(text.format(marker=marker), "adapter")
    assert not marker.exists()


def test_own_code_is_imported_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_settings_module.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine:\n    rank: int = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for text in ("own_settings_module:Mine(rank=4)", "lora(rank=own_settings_module:Mine(rank=4))"):
        with pytest.raises(SpecError, match="own_settings_module"):
            spec.parse(text, "adapter")
    assert "own_settings_module" not in sys.modules
    mine = spec.parse("own_settings_module:Mine(rank=4)", "adapter", allow_import=True)
    assert (type(mine).__name__, mine.rank) == ("Mine", 4)
    assert spec.format(mine, "adapter") == "own_settings_module:Mine(rank=4)"


@pytest.mark.parametrize(
    "path", ["no_such_module:X", "json:no_such_name", "json:", ":x", ".json:x", "json", "json:a..b"]
)
def test_what_cannot_be_imported_is_told(path: str) -> None:
    with pytest.raises(SpecError, match=r"cannot be imported \(.*\); write it as module:name"):
        spec.imported(path)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("loar(rank=4)", "adapter", "unknown adapter 'loar'; did you mean 'lora'?"),
        ("lora(rnak=4)", "adapter", "unknown argument 'rnak'; did you mean 'rank'?"),
        ("letterbox(policy=crop)", "resize", "'letterbox' already sets policy; leave it out"),
        ("files(a.jpg, 2, true, 4)", "source", "the arguments do not fit"),
        ("files", "source", "the arguments do not fit"),
    ],
)
def test_what_does_not_fit_is_told(text: str, kind: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.parse(text, kind)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, 1j, print, Path("x")])
def test_what_no_text_stands_for_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="cannot be written as text"):
        spec.format(Everything(value), "adapter")


@pytest.mark.parametrize("entry", [entry for table in spec.NAMES.values() for entry in table.values()])
def test_every_known_name_loads_and_takes_its_preset(entry: spec.Entry) -> None:
    target = spec.imported(entry.target)
    fields = {item.name for item in dataclasses.fields(target)}
    assert set(entry.preset) <= fields
