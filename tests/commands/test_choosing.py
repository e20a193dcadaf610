"""`train --minutes`: candidates share a split, the best becomes the run, and a stopped search goes on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import parquet

import visionadapt as va
from visionadapt.commands import choosing, searching
from visionadapt.commands.candidates import CANDIDATES
from visionadapt.commands.run import Fitting, TimeOverError
from visionadapt.commands.searching import Search
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.errors import DivergenceError, MemoryShortageError, RunError, VisionAdaptError
from visionadapt.runs.options import RunOptions
from visionadapt.system.locks import FolderLocks
from visionadapt.system.text import percent
from visionadapt.training.epochs import Epoch
from visionadapt.training.trainer import Trainer

from ..conftest import SMALL_BACKBONE

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SMALL = f"--backbone {SMALL_BACKBONE} --weights none --image-size 64 --workers 0 --epochs 1".split()


@pytest.mark.slow
def test_the_best_of_the_candidates_becomes_the_run_and_a_stopped_search_goes_on(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    data, run = tinted_folder(count=8), tmp_path / "run"
    code, output = visionadapt("train", "--data", data, "--out", run, *SMALL, "--minutes", 2, "--mixup", 0.1)
    assert code == 0, output
    found = json.loads((run / "candidates.json").read_text())
    tried = found["candidates"]
    assert len(tried) > 3
    assert tried[0]["adapter"] == "none"
    assert len({entry["name"] for entry in tried}) == len(tried)
    other = {(run / entry["run"] / "model.safetensors").read_bytes() for entry in tried}
    assert len(other) == len(tried)  # no draw repeats another one, though the seed is the random backbone's too
    chosen = next(entry for entry in tried if entry["name"] == found["chosen"])
    assert chosen["score"] == max(entry["score"] for entry in tried)
    assert (run / "model.safetensors").read_bytes() == (run / chosen["run"] / "model.safetensors").read_bytes()
    assert va.load(run).golden_difference() < 1e-4
    report, corrected = (run / "report.html").read_text(), percent(found["accuracy_after_choosing"])
    assert "<title>run: report</title>" in report
    assert f"chosen among {len(tried)}" in report and corrected.replace(" ", "\N{NO-BREAK SPACE}") in report
    keys = [(run / entry["run"] / "ledger.parquet").read_bytes() for entry in tried]
    assert all(key == keys[0] for key in keys)  # the same split
    assert "finished already" in visionadapt("train", "--resume", run)[1]
    # stopped before the choice, it trains only what is missing
    for file in run.iterdir():
        if file.is_file() and file.name != "candidates.json":
            file.unlink()
    (run / "candidates.json").write_text(
        json.dumps({name: found[name] for name in found if name not in {"candidates", "chosen"}})
    )
    shutil.rmtree(run / tried[-1]["run"])
    before = {entry["run"]: (run / entry["run"] / "model.safetensors").stat().st_mtime_ns for entry in tried[:-1]}
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
    assert {name: (run / name / "model.safetensors").stat().st_mtime_ns for name in before} == before
    settings = json.loads((run / tried[-1]["run"] / "config.json").read_text())["settings"]
    assert (settings["mixup"], settings["epochs"]) == (0.1, 1)
    again = json.loads((run / "candidates.json").read_text())
    assert [(entry["name"], entry["score"]) for entry in again["candidates"]] == [
        (entry["name"], entry["score"]) for entry in tried
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that a search has, which only passes while `pretended` trains."""
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(searching, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def pretended(out: Path, clock: SimpleNamespace, refit: bool, several: bool = False) -> Search:
    """A search of 8 minutes whose head takes 5 s, and each other candidate 80 s."""

    def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter, **given: object) -> Path:
        run = Path(str(options.out))
        (run / "validation").mkdir(parents=True)
        columns = {"score": [0.5]} if several else {"true_class": ["cat", "dog"], "label": ["cat", "cat"]}
        parquet.write_table(pa.table(columns), run / "validation" / "predictions.parquet")
        score = "val_mean_average_precision" if several else "val_accuracy"
        seconds = {"train": 5.0 if options.adapter == "none" else 80.0, "save": 0.0}
        (run / "summary.json").write_text(json.dumps({score: 0.5, "seconds": seconds}))
        clock.now += sum(seconds.values())
        return run

    (out / "candidates.json").write_text("{}")
    options, settings = RunOptions(data="photos"), TrainingSettings()
    return Search(out, 8, options, settings, Reporter(quiet=True), train, refit=refit)


@pytest.mark.parametrize(
    ("refit", "several", "tried", "members"), [(False, False, 6, 3), (True, False, 4, 2), (True, True, 5, 1)]
)
def test_time_is_kept_for_training_the_candidates_once_more(
    tmp_path: Path, clock: SimpleNamespace, refit: bool, several: bool, tried: int, members: int
) -> None:
    """Of 8 minutes, 3 % are kept: 465 s. A candidate takes 80 s, and 104 s once more.

    Without that, five fit beside the head: 405 s. With it, three do, of which two can be trained once more: 245 s and
    208 s. With several labels, where nothing is averaged, four do: 325 s and 104 s.
    """
    search = pretended(tmp_path, clock, refit, several)
    results = search.results()
    assert [result.candidate.name for result in results] == [one.name for one in CANDIDATES[:tried]]
    assert search.members_in_time() == members


def test_what_is_left_of_the_time_is_used_where_candidates_fit_into_it(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Behind five of 80 s, 60 s of 465 are left: enough for a sixth of 20 s or more, and then nothing is."""
    search = dataclasses.replace(pretended(tmp_path, clock, refit=False), fitted=True)
    assert len(search.results()) == 7


@pytest.mark.parametrize(("several", "first"), [(False, 2 / 3), (True, 1.0)])
def test_a_candidate_is_told_the_pace_of_the_one_before_and_what_the_first_adapter_leaves(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, several: bool, first: float
) -> None:
    """Epochs that took 1 s where 2 s were expected; the solved head, which has no steps, says nothing of it.

    The first adapter leaves a third of the time for another one to average with; with several labels, none are.
    """
    search, fittings = dataclasses.replace(pretended(tmp_path, clock, False, several), fitted=True), []

    def train(
        options: RunOptions, settings: TrainingSettings, reporter: Reporter, fitting: Fitting, **given: object
    ) -> Path:
        fittings.append(fitting)
        run = search.train(options, settings, reporter)
        (run / "plan.json").write_text("{}")
        (run / "metrics.jsonl").write_text('{"seconds": 1.0}\n')
        return run

    monkeypatch.setattr(searching, "read_plan", lambda run: SimpleNamespace(estimate={"epoch_seconds": 2.0}))
    dataclasses.replace(search, train=train).results()
    assert [fitting.pace for fitting in fittings] == [1.0, 1.0, *[0.5] * 5]
    assert [fitting.share for fitting in fittings[1:]] == [pytest.approx(first), *[1.0] * 5]


@pytest.mark.parametrize("error", [DivergenceError("the loss became nan"), MemoryShortageError("too little memory")])
def test_a_candidate_that_cannot_be_trained_is_left_out(
    tmp_path: Path, clock: SimpleNamespace, error: VisionAdaptError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is used up all the same, and a resumed search does not try it again."""
    search, tried = pretended(tmp_path, clock, refit=False), []

    def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter, **given: object) -> Path:
        tried.append(options.out)
        if len(tried) == 3:
            raise error
        return search.train(options, settings, reporter)

    failing = dataclasses.replace(search, train=train, minutes=1e6)
    names = [candidate.name for candidate in CANDIDATES]
    for _ in range(2):
        found = failing.results()
        assert [result.candidate.name for result in found] == names[:2] + names[3:]
        assert len(tried) == len(names)
    monkeypatch.setattr(choosing, "choose_from", lambda results, most, metric: [])
    results, _ = choosing.decided(failing)
    assert json.loads((tmp_path / "candidates.json").read_text())["decided"]["tried"] == len(names)
    assert [result.run for result in results] == [result.run for result in choosing.decided(failing)[0]]


def test_what_earlier_processes_took_is_no_longer_there(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Of 465.6 s, 5 + 80 are those of finished candidates, and 300 those of the third one until it was killed."""
    search = pretended(tmp_path, clock, refit=False)
    dataclasses.replace(search, candidates=CANDIDATES[:2]).results()
    stopped = tmp_path / "candidates" / "3"
    stopped.mkdir()
    (stopped / "spent.json").write_text(json.dumps({"seconds": {"features": 100.0, "train": 200.0}}))
    assert dataclasses.replace(search).ends - clock.now == pytest.approx(465.6 - 85 - 300)


def test_time_is_kept_for_what_follows_the_epochs(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Saving takes 10 s and a report 5 s, of each candidate and of the ensemble; the last report takes 5 s more."""
    search, limits = pretended(tmp_path, clock, refit=False), []

    def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter, **given: object) -> Path:
        limits.append(search.ends - clock.now - 60 * float(options.max_minutes or 0))
        run = search.train(options, settings, reporter)
        summary = json.loads((run / "summary.json").read_text())
        summary["seconds"].update(save=10.0, report=5.0)
        (run / "summary.json").write_text(json.dumps(summary))
        return run

    dataclasses.replace(search, train=train, candidates=CANDIDATES[:3]).results()
    assert limits == pytest.approx([0.0, 15 + 5, 15 + 15 + 5])


def test_where_no_epoch_fits_the_search_ends_with_what_it_has(tmp_path: Path, clock: SimpleNamespace) -> None:
    search, tried = pretended(tmp_path, clock, refit=False), []

    def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter, **given: object) -> Path:
        tried.append(options.adapter)
        if len(tried) > fitting:
            raise TimeOverError
        return search.train(options, settings, reporter)

    fitting = 0
    with pytest.raises(RunError, match="--minutes 8"):
        dataclasses.replace(search, train=train).results()
    fitting = 2
    assert [result.candidate.adapter for result in dataclasses.replace(search, train=train).results()] == ["none"]
    assert len(tried) == 3


def test_without_the_first_candidate_there_is_nothing_to_compare_with(tmp_path: Path, clock: SimpleNamespace) -> None:
    def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter, **given: object) -> Path:
        raise DivergenceError("the loss became nan")

    with pytest.raises(DivergenceError):
        dataclasses.replace(pretended(tmp_path, clock, refit=False), train=train).results()


def test_the_lower_rate_is_lower_than_one_that_is_given(tmp_path: Path, clock: SimpleNamespace) -> None:
    search, rates = pretended(tmp_path, clock, refit=False), {}

    def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter, **given: object) -> Path:
        rates[Path(options.out or "").name] = settings.learning_rate
        return search.train(options, settings, reporter)

    given = dataclasses.replace(search.settings, learning_rate=0.001)
    dataclasses.replace(search, train=train, settings=given, minutes=1e6).results()
    lower = next(str(n) for n, one in enumerate(search.candidates, 1) if one.name == "default adapter, lower rate")
    assert rates.pop(lower) == pytest.approx(0.0006)
    assert set(rates.values()) == {0.001}


def test_the_lower_rate_falls_with_many_images_as_that_of_the_others(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Four times 600 images have half of each method's rate, and so has the candidate of 0.003."""
    search, rates = pretended(tmp_path, clock, refit=False), []

    def train(options: RunOptions, settings: TrainingSettings, reporter: Reporter, **given: object) -> Path:
        rates.append(settings.learning_rate)
        run = search.train(options, settings, reporter)
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps({**summary, "train_images": 2400}))
        return run

    dataclasses.replace(search, train=train, minutes=1e6).results()
    assert [rate for rate in rates if rate is not None] == [0.0015]


@pytest.mark.slow
def test_a_candidate_has_as_many_epochs_as_there_is_time_for(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, most = tmp_path / "run", 100_000
    given = (*SMALL[:-1], str(most), "--no-early-stopping", "--minutes", 0.06)
    code, output = visionadapt("train", "--data", tinted_folder(count=8), "--out", run, *given)
    assert code == 0, output
    first = run / "candidates" / "2"
    epochs = json.loads((first / "config.json").read_text())["settings"]["epochs"]
    assert 1 < epochs < most
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    if len(lines) == epochs:  # the machine was as fast as was measured
        assert lines[-1]["learning_rate"] < 0.1 * max(line["learning_rate"] for line in lines)
    tried = json.loads((run / "candidates.json").read_text())["candidates"]
    assert tried[1]["epochs"] == epochs and "epochs" not in tried[0]
    # resumed, it keeps them
    for file in (*run.glob("*.json"), *run.glob("*.safetensors"), first / "summary.json"):
        if file.name != "candidates.json":
            file.unlink()
    found = json.loads((run / "candidates.json").read_text())
    (run / "candidates.json").write_text(
        json.dumps({name: found[name] for name in found if name not in {"candidates", "chosen", "decided"}})
    )
    code, output = visionadapt("train", "--resume", run)
    assert code == 0, output
    assert json.loads((first / "config.json").read_text())["settings"]["epochs"] == epochs


def test_a_resumed_search_keeps_to_what_was_decided(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = pretended(tmp_path, clock, refit=True)
    monkeypatch.setattr(choosing, "choose_from", lambda results, most, metric: [results[2], results[0]])
    results, members = choosing.decided(search)
    assert [member.run.name for member in members] == ["3", "1"]
    for again in (search, dataclasses.replace(search, minutes=100), dataclasses.replace(search, minutes=0.01)):
        monkeypatch.setattr(choosing, "choose_from", lambda results, most, metric: [])
        found, same = choosing.decided(again)
        assert [result.run for result in found] == [result.run for result in results]
        assert [member.run for member in same] == [member.run for member in members]
    for strange in (3, {}, {"tried": 4, "members": ["?"]}, {"tried": "4", "members": []}):
        (tmp_path / "candidates.json").write_text(json.dumps({"decided": strange}))
        with pytest.raises(RunError, match="again"):
            choosing.decided(search)


@pytest.mark.slow
def test_a_search_that_imports_its_own_code_is_trusted_to_its_end(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_darker.py").write_text("def darker(pixels):\n    return pixels // 2\n")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    given = ("--augment", "own_darker:darker", "--views", 1)
    code, output = visionadapt("train", "--data", tinted_folder(), "--out", run, *SMALL, "--minutes", 0.02, *given)
    assert code == 0, output
    assert "chosen" in json.loads((run / "candidates.json").read_text())


@pytest.mark.parametrize(
    "given",
    [
        ("--minutes", 0),
        ("--minutes", 1, "--adapter", "lora"),
        ("--minutes", 1, "--plan"),
        ("--minutes", 1, "--folds", 3),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, given: tuple[object, ...]
) -> None:
    code, output = visionadapt("train", "--data", tinted_folder(count=4), "--out", tmp_path / "run", *SMALL, *given)
    assert (code, output.count("\n")) == (2, 1)
    assert "--minutes" in output
    assert not (tmp_path / "run").exists()


def test_a_search_that_goes_on_scores_its_ensemble_by_the_figure_it_began_with(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--resume` names no metric."""
    search, given = pretended(tmp_path, clock, refit=False), []
    own = dataclasses.replace(search.settings, metric="macro_f1")
    monkeypatch.setattr(choosing, "begun", lambda *asked: (tmp_path, 8.0, search.options, own))
    monkeypatch.setattr(choosing, "decided", lambda search: ([], []))
    monkeypatch.setattr(choosing, "with_ensemble", lambda *asked: given.append(asked[-1]) or [])
    monkeypatch.setattr(choosing, "chosen", lambda results: None)
    monkeypatch.setattr(choosing, "_taken", lambda *asked: tmp_path)
    (tmp_path / "candidates.json").write_text("{}")
    options = RunOptions(resume=str(tmp_path))
    choosing.train_candidates(options, TrainingSettings(), Reporter(quiet=True), search.train, None)
    assert given == [own]


@pytest.mark.slow
def test_a_search_goes_on_with_its_own_settings(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    run, stopped = tmp_path / "run", ("candidates", "chosen", "decided")
    given = (*SMALL, "--minutes", 2, "--mixup", 0.1, "--patience", 3)
    assert visionadapt("train", "--data", tinted_folder(count=4), "--out", run, *given)[0] == 0
    code, output = visionadapt("train", "--resume", run)
    assert code == 0 and "finished already" in output
    facts = json.loads((run / "candidates.json").read_text())
    (run / "candidates.json").write_text(json.dumps({name: facts[name] for name in facts if name not in stopped}))
    with FolderLocks() as another:
        another.take(run)
        code, output = visionadapt("train", "--resume", run)
        assert (code, output.count("\n")) == (2, 1) and "in use by" in output
    for other in (
        *(("--epochs", 40), ("--mixup", 0.2), ("--cutmix", 1), ("--patience", 5), ("--minutes", 3), ("--refit",)),
        *(("--max-minutes", 1), ("--plan",), ("--adapter", "lora"), ("--folds", 3)),
    ):
        code, output = visionadapt("train", "--resume", run, *other)
        assert (code, output.count("\n")) == (2, 1), other
        assert f"{other[0]} cannot" in output and f" {run} " in output  # not one of its candidates
    assert visionadapt("train", "--resume", run, "--epochs", 1, "--mixup", 0.1, "--patience", 3)[0] == 0


@pytest.mark.slow
def test_what_was_chosen_is_finished_though_its_time_was_over(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert visionadapt("train", "--data", tinted_folder(count=4), "--out", run, *SMALL, "--minutes", 0.05)[0] == 0
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "stopped_after": 1}))
    for command in (("train", "--resume"), ("finish",)):
        code, output = visionadapt(*command, run)
        assert code == 0 and "finished already" in output


@pytest.mark.slow
def test_a_search_leaves_the_epochs_to_the_number_of_images(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, epoch, done = tmp_path / "run", Trainer.epoch, []

    def interrupted(self: Trainer) -> Epoch:
        done.append(epoch(self))
        if len(done) in {2, 43}:  # the head takes one, and the second candidate 40 when it goes on
            raise KeyboardInterrupt
        return done[-1]

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    given = (*SMALL[:-2], "--no-early-stopping", "--minutes", 2)
    assert visionadapt("train", "--data", tinted_folder(count=4), "--out", run, *given)[0] == 130
    facts = json.loads((run / "candidates.json").read_text())
    assert facts["epochs"] is None
    for strange in ({}, {"epochs": "20"}, {"epochs": True}):
        kept = {name: value for name, value in facts.items() if name != "epochs"}
        (run / "candidates.json").write_text(json.dumps({**kept, **strange}))
        code, output = visionadapt("train", "--resume", run)
        assert (code, output.count("\n")) == (2, 1) and "has no epochs" in output
    (run / "candidates.json").write_text(json.dumps(facts))
    code, output = visionadapt("train", "--resume", run, "--epochs", 3)
    assert code == 2 and "--epochs cannot" in output
    code, output = visionadapt("train", "--resume", run)
    assert code == 130, output
    for number in (2, 3):
        config = json.loads((run / "candidates" / str(number) / "config.json").read_text())
        assert config["settings"]["epochs"] == 40


@pytest.mark.slow
def test_a_search_that_was_stopped_before_its_first_candidate_is_begun_again(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, given = tmp_path / "run", ("--data", tinted_folder(count=4), "--out", tmp_path / "run", *SMALL)

    def interrupted(search: Search) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Search, "results", interrupted)
        assert visionadapt("train", *given, "--minutes", 2)[0] == 130
    code, output = visionadapt("train", "--resume", run)
    assert (code, output.count("\n")) == (2, 1) and "begin again" in output
    with FolderLocks() as another:
        another.take(run)
        code, output = visionadapt("train", *given, "--minutes", 0.05)
        assert (code, output.count("\n")) == (2, 1) and "in use by" in output and run.is_dir()
    (run / "candidates").mkdir()
    (run / "candidates" / "mine.txt").write_text("kept")
    assert visionadapt("train", *given, "--minutes", 0.05)[0] == 2
    (run / "candidates" / "mine.txt").unlink()
    assert visionadapt("train", *given, "--minutes", 0.05)[0] == 0
    assert visionadapt("train", *given, "--minutes", 0.05)[0] == 2  # now there is something
    assert (run / "model.safetensors").exists() and not (run / ".lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [("train", "--minutes", 2), ("compare",), ("train", "--folds", 2)])
def test_what_is_stopped_says_how_all_of_it_goes_on(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    run, epoch, done = tmp_path / "run", Trainer.epoch, []

    def interrupted(self: Trainer) -> Epoch:
        done.append(epoch(self))
        if len(done) == 2:
            raise KeyboardInterrupt
        return done[-1]

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    code, output = visionadapt(*command, "--data", tinted_folder(count=4), "--out", run, *SMALL)
    assert code == 130
    assert output.count("--resume") == 1 and f"--resume {run}\n" in output
    monkeypatch.setattr(Trainer, "epoch", epoch)
    assert visionadapt(command[0], "--resume", run)[0] == 0


@pytest.mark.slow
def test_candidates_of_other_images_are_not_compared(visionadapt: Run, tinted_folder: Make, tmp_path: Path) -> None:
    """What was changed while no candidate was trained: the label of an image, so that their number stays."""
    data, run, stopped = tinted_folder(count=6), tmp_path / "run", ("candidates", "chosen", "decided")
    assert visionadapt("train", "--data", data, "--out", run, *SMALL, "--minutes", 2)[0] == 0
    facts = json.loads((run / "candidates.json").read_text())
    (run / "candidates.json").write_text(json.dumps({name: facts[name] for name in facts if name not in stopped}))
    shutil.rmtree(run / "candidates" / "3")
    first, second = (min(folder.iterdir()) for folder in sorted(data.iterdir())[:2])
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    code, output = visionadapt("train", "--resume", run)
    assert code == 2 and f"not those that {run}/candidates/1 began with" in output and first.name in output
    first.write_bytes(content)
    assert visionadapt("train", "--resume", run)[0] == 0
