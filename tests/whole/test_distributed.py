"""Two processes train what one does: the same weights, one voice, and one end for both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore

from visionadapt.errors import UsageError
from visionadapt.system import distributed

from ..conftest import SMALL_BACKBONE
from ..forked import Command

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
SETTINGS = (
    *("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "32", "--workers", "0", "--patience", "0"),
    *("--precision", "float32", "--batch-size", "7"),
)
NOISY = ("--adapter", "bottleneck(rank=4, blocks=last:2, dropout=0.1, drop_path=0.2)")
OWN_SOURCE = '''
import os
from dataclasses import dataclass

from visionadapt.errors import SourceError
from visionadapt.sources import FolderSource


@dataclass(frozen=True)
class Odd(FolderSource):
    """In process 1 alone it has another row, or none that can be read."""

    wrong: str = "bytes"

    def __iter__(self):
        rows = list(super().__iter__())
        return iter(rows[os.environ.get("RANK") == "1" and self.wrong == "rows" :])

    def read(self, record):
        if os.environ.get("RANK") == "1" and self.wrong == "bytes":
            raise SourceError("the pictures are gone, all of them")
        return super().read(record)
'''


def environment(**more: str) -> dict[str, str]:
    """As torchrun's processes have it, on one thread each."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **more}


@contextmanager
def two_processes(*arguments: str, caches: Sequence[Path] = ()) -> Iterator[list[Command]]:
    """Train in two processes that know each other as torchrun's do, with nobody to end the one for the other.

    With `caches` each is alone on a machine that has one of them.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{store.port}", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    started = []
    for rank in range(2):
        knows = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        if caches:
            knows |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "VISIONADAPT_CACHE": str(caches[rank])}
        words = (*arguments, *SETTINGS)
        started.append(Command("visionadapt.train", words, environment(**knows, **place), together=True))
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def ends(started: list[Command]) -> tuple[list[int], str]:
    """Both exit codes, and all that both have told."""
    told = [process.communicate(timeout=120)[0] for process in started]
    return [process.returncode for process in started], "".join(told)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(
    visionadapt: Run, tinted_folder: Make, tmp_path: Path, own_cache: Path
) -> None:
    """36 rows in batches of 7 are shared out as 3 and 4, and the last one is a single row, which only one gets."""
    data = tinted_folder(count=23)
    (data / "blood" / "broken.png").write_bytes(b"\x89PNG no picture")
    (data / "grass" / "0.png").unlink()
    settings = (*SETTINGS, *NOISY, "--data", str(data), "--epochs", "3", "--augment", "light", "--views", "2")
    code, output = visionadapt("train", "--out", tmp_path / "one", *settings)
    assert code == 0, output
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "visionadapt.train", *settings, "--out", str(tmp_path / "two")]
    cache = environment(VISIONADAPT_CACHE=str(tmp_path / "cache"))
    done = subprocess.run(command, env=cache, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-5
    assert max(two[key].abs().max().item() for key in two if "up" in key) > 1e-3
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for first, second in zip(*lines, strict=True):
        for figure in ("epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate"):
            assert first[figure] == pytest.approx(second[figure], abs=1e-5)
    found = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two")]
    assert found[0]["train_images"] % 7 == 1
    for figure in ("images", "train_images", "val_images", "prefix_forwards", "probe_accuracy", "best_epoch"):
        assert found[0][figure] == found[1][figure]
    assert (tmp_path / "one" / "rejected.csv").read_text() == (tmp_path / "two" / "rejected.csv").read_text()
    assert done.stderr.count("run folder: ") == output.count("run folder: ")
    assert done.stdout == ""


@pytest.mark.slow
def test_two_processes_train_with_a_pipeline_of_one_s_own(tinted_folder: Make, tmp_path: Path) -> None:
    """A function's `repr` holds its address, which is another one in each process."""
    (tmp_path / "own_half.py").write_text("def half(picture):\n    return picture // 2\n")
    settings = ("--data", str(tinted_folder()), "--out", str(tmp_path / "run"), "--epochs", "1")
    sys.path.insert(0, str(tmp_path))
    try:
        with two_processes(*settings, "--augment", "own_half:half", "--views", "1") as started:
            codes, output = ends(started)
    finally:
        sys.path.remove(str(tmp_path))
    assert codes == [0, 0], output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["prefix_forwards"] == 20


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "words"), [("bytes", "the pictures are gone"), ("rows", "has images '")])
def test_what_is_wrong_in_one_process_ends_both_with_one_line(
    tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, words: str
) -> None:
    (tmp_path / "own_source.py").write_text(OWN_SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    source = f"own_source:Odd({tinted_folder(count=4)}, wrong={wrong})"
    with two_processes("--data", source, "--out", str(tmp_path / "run"), "--adapter", "none") as started:
        codes, output = ends(started)
    assert codes == [2, 2], output
    assert output.count("error: ") == 1, output
    assert words in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_machines_without_a_shared_cache_train_until_one_is_interrupted(tinted_folder: Make, tmp_path: Path) -> None:
    run, caches = tmp_path / "run", (tmp_path / "cache0", tmp_path / "cache1")
    arguments = ("--data", str(tinted_folder(count=8)), "--out", str(run), "--adapter", "none", "--epochs", "4000")
    arguments += ("--head", "trained")
    with two_processes(*arguments, caches=caches) as started:
        while not (run / "checkpoint.safetensors").exists():
            assert all(process.poll() is None for process in started)
            time.sleep(0.05)
        started[0].send_signal(signal.SIGTERM)
        codes, output = ends(started)
    assert codes == [143, 143], output
    assert output.count("error: ") == output.count(f"go on with --resume {run}") == 1, output
    assert "Traceback" not in output
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["epoch"] == 1
    for cache in caches:
        assert next(cache.glob("*/ids.bin")).stat().st_size == 16 * 32


def test_one_process_alone_does_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.launched(), distributed.rank(), distributed.world_size()) == (1, 0, 1)
    with distributed.joined():
        assert distributed.is_first()
        assert list(distributed.part_of([5, 3, 4])) == [0, 1, 2]
        assert distributed.share_of([5, 3, 4]) == distributed.share_of_machine([5, 3, 4]) == [5, 3, 4]
        assert distributed.gathered("x") == ["x"]
        assert distributed.from_first(lambda: 3) == 3
        assert torch.equal(distributed.sum_of(torch.ones(2)), torch.ones(2))
        weight = torch.nn.Parameter(torch.ones(2))
        assert distributed.sum_gradients([weight], torch.tensor(1.5)) == [1.5]
        assert weight.grad is None
        distributed.check_alike({"pictures": 3})
        distributed.wait_for_all()
    assert distributed.ending("why", 2) == (True, 2)
    assert not distributed.is_ending()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8])
def test_parts_of_a_batch_are_the_whole_and_differ_by_one_at_most(
    monkeypatch: pytest.MonkeyPatch, size: int, rows: int
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: size)
    parts = []
    for number in range(size):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        parts.append(distributed.part_of(range(rows)))
    assert [place for part in parts for place in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_processes_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(UsageError, match="this machine has 2 GPUs; start torchrun with --nproc-per-node 2"),
        distributed.joined(),
    ):
        pass
    with pytest.raises(UsageError, match="--device cuda:1 is one GPU"), distributed.joined("cuda:1"):
        pass
    assert distributed.ending("why", 2) == (False, 2)
    monkeypatch.setenv("RANK", "0")
    assert distributed.ending("why", 2) == (True, 2)
