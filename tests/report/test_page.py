"""Contents of a report; no markup in it comes from anywhere but the template."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from sklearn.metrics import log_loss

import visionadapt as va
from tests.conftest import SMALL_BACKBONE
from tests.report.conftest import CLASSES, trained
from visionadapt import sources
from visionadapt.errors import RunError
from visionadapt.html.pages import with_commands
from visionadapt.report import figures, page, write_report
from visionadapt.report.run_contents import read_run
from visionadapt.runs.ledger import ledger_rows
from visionadapt.sources.opening import open_source

ELEMENTS = {"details", "summary"} | {
    *(
        "a",
        "bdi",
        "body",
        "br",
        "caption",
        "code",
        "dd",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "footer",
        "h1",
        "h2",
    ),
    *("h3", "head", "header", "html", "img", "li", "link", "main", "meta", "nav", "p", "pre", "section", "span"),
    *("strong", "style", "table", "tbody", "td", "th", "thead", "title", "tr", "ul", "wbr"),
    *("svg", "g", "line", "circle", "polyline", "rect", "text"),
}
Command = Callable[..., tuple[int, str]]


class Page(HTMLParser):
    """Elements with their attributes, and the whole text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == tag]


def copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


def test_an_html_parser_finds_only_what_the_template_made(hostile_run: Path) -> None:
    page = Page(hostile_run / "report.html")
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in {"style", "srcset", "action"}]
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.all_of("img"))
    assert all(str(link["href"]).startswith("#") for link in page.all_of("a"))


def test_names_appear_unchanged(hostile_run: Path) -> None:
    page = Page(hostile_run / "report.html")
    for name in (*CLASSES, "<u>broken.png", "copy.png", "<i>run & more"):
        assert name in page.text, name
    validated = {
        row["file"] for row in ledger_rows(hostile_run) if row["part"] == "val" and row["status"] != "rejected"
    }
    seen = " as the model sees it"
    shown = {alt.removesuffix(seen) for image in page.all_of("img") if (alt := str(image["alt"])).endswith(seen)}
    assert shown and shown <= validated
    assert all(file in page.text for file in shown)


def test_it_reports_what_the_run_folder_holds(hostile_run: Path) -> None:
    page = Page(hostile_run / "report.html")
    evaluation = json.loads((hostile_run / "validation" / "evaluation.json").read_text())
    summary = json.loads((hostile_run / "summary.json").read_text())
    low, high = evaluation["intervals"]["accuracy"]
    text = page.text.replace("\N{NO-BREAK SPACE}", "")
    for share in (evaluation["accuracy"], low, high, summary["probe_accuracy"], summary["majority_accuracy"]):
        assert f"{share:.1%}" in text
    assert "equal files with different classes: one label is wrong: 1" in text
    assert json.loads((hostile_run / "plan.json").read_text())["weights_hash"] in text
    assert "--adapter none" in text
    ids = {str(section["id"]) for section in page.all_of("section")}
    assert {"result", "curves", "confusions", "classes", "calibration", "images", "resizing", "data"} <= ids
    cards = len([image for image in page.all_of("img") if str(image["alt"]).startswith("Heat map for ")])
    wrong = round((1 - evaluation["accuracy"]) * evaluation["pictures"])
    assert cards == min(6, wrong) + min(6, evaluation["pictures"] - min(6, wrong))


def test_names_in_sentences_stay_text_and_commands_become_code() -> None:
    told = with_commands(
        "<b>--x</b> is 5 % worse: try --resize letterbox, or visionadapt evaluate RUN --data FOLDER. See."
    )
    assert str(told) == (
        "&lt;b&gt;<code>--x</code>&lt;/b&gt; is 5\N{NO-BREAK SPACE}% worse: try <code>--resize letterbox</code>, "
        "or <code>visionadapt evaluate RUN --data FOLDER</code>. See."
    )


def test_a_missing_image_is_reported(hostile_run: Path, tmp_path: Path) -> None:
    run = copied(hostile_run, tmp_path)
    source = open_source(json.loads((run / "config.json").read_text())["options"]["data"])
    kept = [record for record in source if record.key.endswith("0.png")]
    page = Page(write_report(run, va.Manifest(source, kept, source.classes)))
    assert "is no longer in the source" in page.text


def test_without_images_it_says_why(hostile_run: Path, tmp_path: Path) -> None:
    run = copied(hostile_run, tmp_path)
    page = Page(write_report(run))
    assert "The images cannot be shown: no source of images was given." in page.text
    assert not page.all_of("img")


def test_the_command_updates_it(hostile_run: Path, tmp_path: Path, visionadapt: Command) -> None:
    run = copied(hostile_run, tmp_path)
    (run / "report.html").unlink()
    code, output = visionadapt("report", run)
    assert (code, "report.html" in output) == (0, True)
    assert Page(run / "report.html").elements == Page(hostile_run / "report.html").elements


def test_code_that_a_run_folder_names_is_not_imported(
    hostile_run: Path, tmp_path: Path, visionadapt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(hostile_run, tmp_path)
    (tmp_path / "evil_source.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads((run / "config.json").read_text())
    config["options"]["data"] = "evil_source:Source(x)"
    (run / "config.json").write_text(json.dumps(config))
    assert visionadapt("report", run)[0] == 0
    assert "import evil_source:Source" in (run / "report.html").read_text()


@pytest.mark.parametrize("missing", ["validation", "calibration.json", "ledger.parquet", "metrics.jsonl", "plan.json"])
def test_a_missing_file_makes_it_shorter(hostile_run: Path, tmp_path: Path, missing: str, visionadapt: Command) -> None:
    run = copied(hostile_run, tmp_path)
    complete = (run / "report.html").stat().st_size
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, output = visionadapt("report", run)
    assert code == 0, output
    assert (run / "report.html").stat().st_size < complete


def test_an_unfinished_run_has_a_report(hostile_run: Path, tmp_path: Path, visionadapt: Command) -> None:
    run = copied(hostile_run, tmp_path)
    for path in run.iterdir():
        if path.name not in {"config.json", "plan.json", "ledger.parquet", "metrics.jsonl"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert visionadapt("report", run)[0] == 0
    assert "Not finished" in (run / "report.html").read_text()


def test_a_run_saved_from_python_has_a_report(
    tinted_folder: Callable[..., Path], tmp_path: Path, visionadapt: Command
) -> None:
    model = va.classifier(SMALL_BACKBONE, classes=("blood", "grass"), weights="none")
    run = va.save(tmp_path / "run", model, va.preprocessing_for(model))
    assert visionadapt("report", run)[0] == 0
    assert "saved from Python" in (run / "report.html").read_text()


@pytest.mark.slow
def test_images_of_several_classes_have_a_report(tinted_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = tinted_folder()
    keys = [record.key for record in sources.FolderSource(folder)]
    lines = [f"{key},{'red|light' if place % 2 else 'light'}" for place, key in enumerate(keys)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *lines]))
    data = f"csv({folder / 'labels.csv'}, image=image, label=label, separator='|')"
    run = trained(data, tmp_path, task="multilabel")
    page = Page(run / "report.html")
    assert "mean average precision" in page.text and "Every label is right for" in page.text
    rows = parquet.read_table(run / "validation" / "predictions.parquet").to_pylist()
    losses = {
        row["file"]: log_loss(
            [[name in row["true_classes"], name not in row["true_classes"]] for name in ("light", "red")],
            [[probability, 1 - probability] for probability in row["probabilities"]],
        )
        for row in rows
    }
    highest = max(losses, key=lambda file: losses[file])
    first_card = page.text[page.text.index("Images of highest loss") :].split("%", 1)[1].split(".png", 1)[0]
    assert Path(highest).stem in first_card


@pytest.mark.parametrize("name", ["", "nothing"])
def test_a_folder_that_is_not_a_run_is_an_error_of_one_line(tmp_path: Path, name: str, visionadapt: Command) -> None:
    code, output = visionadapt("report", tmp_path / name)
    assert code == 2
    assert output.startswith("error: ") and output.count("\n") == 1 and str(tmp_path / name) in output


def test_a_damaged_file_is_an_error(hostile_run: Path, tmp_path: Path) -> None:
    run = copied(hostile_run, tmp_path)
    table = parquet.read_table(run / "validation" / "predictions.parquet")
    for column, cells in (
        ("probabilities", ["high"] * len(table)),
        ("probabilities", [[2.0, -1.0]] * len(table)),
        ("file", [[1]] * len(table)),
    ):
        place = table.column_names.index(column)
        parquet.write_table(
            table.set_column(place, column, pyarrow.array(cells)), run / "validation" / "predictions.parquet"
        )
        with pytest.raises(RunError, match=r"predictions\.parquet"):
            write_report(run)
    (run / "validation" / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"predictions\.parquet"):
        write_report(run)


@pytest.mark.slow
def test_a_bug_in_the_report_is_reported_and_loses_no_run(
    tinted_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object) -> Path:
        raise KeyError("a bug")

    monkeypatch.setattr(page, "write_report", broken)
    run = trained(f"folder({tinted_folder()})", tmp_path)
    told = capsys.readouterr().err
    assert (run / "summary.json").exists()
    assert "Traceback" in told and "report: could not be made" in told and "(KeyError('a bug'))" in told


@pytest.mark.slow
def test_a_solved_head_has_no_curves_and_is_no_baseline_of_its_own(
    tinted_folder: Callable[..., Path], tmp_path: Path
) -> None:
    contents = read_run(trained(str(tinted_folder()), tmp_path, head="solved"))
    assert contents.solved and len(contents.metrics) == 1
    assert figures.curves(contents) == []
    chart = figures.accuracy_chart(contents)
    assert chart is not None and len(chart.rows) == 2
    assert contents.summary["probe_accuracy"] == contents.summary["val_accuracy"]


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (
            {"best_epoch": 0, "only_this_classifier": 0, "only_probe": 0},
            ("Every epoch was worse", "saved the solved head"),
        ),
        (
            {"best_epoch": 7, "only_this_classifier": 9, "only_probe": 1},
            ("9 images", "1 only", "p = 0.021", "more than"),
        ),
        (
            {"best_epoch": 7, "only_this_classifier": 4, "only_probe": 3},
            ("4 images", "3 only", "p = 1)", "may be chance"),
        ),
        ({"best_epoch": 7}, None),  # a run of an earlier version
    ],
)
def test_the_comparison_with_the_probe_in_words(
    hostile_run: Path, summary: dict[str, int], words: tuple[str, ...] | None
) -> None:
    contents = read_run(hostile_run)
    config = {"options": {"adapter": "lora"}, "settings": {"head": "trained"}}
    run = dataclasses.replace(contents, config=config, summary={"probe_accuracy": 0.5, **summary})
    told = figures.against_probe(run)
    assert (told is None) if words is None else all(word in str(told) for word in words)
    assert figures.against_probe(contents) is None  # only the head was trained
