"""Options in a TOML file: under those of the command line, with a hint where one is mistyped."""

from __future__ import annotations

import dataclasses
import shlex
import string
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.commands import shell
from visionadapt.core.settings import TrainingSettings
from visionadapt.core.spec_syntax import Call, read
from visionadapt.report import reproducibility
from visionadapt.report.run_contents import RunContents
from visionadapt.runs.options import OutputOptions, RunOptions
from visionadapt.train import app

Parsed = tuple[RunOptions, TrainingSettings, OutputOptions]
Fails = Callable[[str], str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


def parsed(file: Path, text: str, *tokens: str) -> Parsed:
    """What the train command would be called with."""
    file.write_text(text, encoding="utf-8")
    _, bound, _ = app.parse_args(["--config", str(file), *tokens], exit_on_error=False, print_error=False)
    given = bound.arguments
    return (
        given.get("options") or RunOptions(),
        given.get("settings") or TrainingSettings(),
        given.get("output") or OutputOptions(),
    )


def test_the_command_line_comes_first(file: Path) -> None:
    text = 'data = "photos"\nepochs = 7\nlearning-rate = 1e-3\nimage_size = 96\ncheckpointing = true\nquiet = true\n'
    options, settings, output = parsed(file, text, "--epochs", "3", "--val", "0.5")
    assert options == RunOptions(data="photos", image_size=96, val=0.5)
    assert settings == TrainingSettings(epochs=3, learning_rate=0.001, checkpointing=True)
    assert output == OutputOptions(quiet=True)


def test_a_table_stands_for_a_settings_text(file: Path) -> None:
    text = """
        [adapter.lora]
        rank = 8
        blocks = "last:6"
        [data.csv]
        path = "my labels, all.csv"
        image = "file"
        drop = ["Not sure", "other"]
        [resize.letterbox]
    """
    options, _, _ = parsed(file, text)
    assert options.adapter == "lora(rank=8, blocks=last:6)"
    assert options.resize == "letterbox"
    assert read(str(options.data)) == Call(
        "csv", (), {"path": "my labels, all.csv", "image": "file", "drop": ("Not sure", "other")}
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("learning-rat = 3", "did you mean 'learning_rate'?"),
        ("config = 'other.toml'", "unknown key 'config'"),
        ("epochs = 'many'", "epochs"),
        ("epochs = 1.5", "--epochs 1.5 is no whole number"),
        ("epochs = 0", "--epochs 0"),
        ("precision = 'flot32'", "float32"),
        ("epochs = [1]", "epochs is a list"),
        ("[epochs]\nmost = 3", "epochs is a table"),
        ("[adapter]\nrank = 3", "such as [adapter.lora]"),
        ("[adapter.lora]\n[adapter.dora]", "such as [adapter.lora]"),
        ("[adapter.lra]\nrank = 8", "did you mean 'lora'"),
        ("[adapter.lora]\nrnk = 8", "did you mean 'rank'"),
        ("epochs =", "--config"),
        ("\x00", "--config"),
    ],
)
def test_a_mistake_is_one_line(
    file: Path, text: str, words: str, tinted_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text, encoding="utf-8")
    data = str(tinted_folder(count=3))
    tokens = ["--config", str(file), "--data", data, "--backbone", "test_efficientnet", "--weights", "none", "--plan"]
    assert shell.run(app, tokens) == 2
    output = capsys.readouterr().err.strip().splitlines()
    assert words in output[-1]
    assert output[-1].startswith("error: ")


@pytest.mark.parametrize("option", ["--epochs", "--image-size", "--workers"])
def test_a_fraction_is_not_rounded(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(app, ["--data", "photos", option, "1.5"]) == 2
    assert capsys.readouterr().err == f"error: {option} 1.5 is no whole number; give one\n"


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(app, ["--config", str(tmp_path / "run.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


PLAIN = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
)


@pytest.mark.slow
@given(st.dictionaries(st.text(string.ascii_lowercase + "_", min_size=1, max_size=9), PLAIN))
def test_toml_is_read_as_it_was_written(values: Mapping[str, Any]) -> None:
    assert tomllib.loads(tomli_w.dumps(values)) == values


def test_what_repeats_a_run_is_read_as_its_settings(file: Path) -> None:
    options = RunOptions(data='csv("a \\ b.csv", image=file)', image_size=64, adapter="none", val=0.25)
    settings = TrainingSettings(epochs=3, learning_rate=1e-05, checkpointing=True, device="cpu")
    values = {**dataclasses.asdict(options), **dataclasses.asdict(settings)}
    text = tomli_w.dumps({name: value for name, value in values.items() if value is not None})
    assert parsed(file, text)[:2] == (options, settings)


def test_the_report_s_command_gives_the_same_settings(tmp_path: Path) -> None:
    options = RunOptions(data="folder(my photos)", image_size=64, scaled=True, out="runs/a")
    settings = TrainingSettings(epochs=3, learning_rate=1e-05, checkpointing=True)
    config = {"options": dataclasses.asdict(options), "settings": dataclasses.asdict(settings)}
    words = shlex.split(reproducibility.command(RunContents(tmp_path, config, {}, {}, (), (), None, {}, None)))
    assert words[:3] == ["python", "-m", "visionadapt.train"]
    _, bound, _ = app.parse_args(words[3:], exit_on_error=False, print_error=False)
    assert bound.arguments["options"] == dataclasses.replace(options, out=None)
    assert bound.arguments["settings"] == settings
