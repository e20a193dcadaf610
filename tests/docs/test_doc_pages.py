"""The pages of docs/: every block of code runs, every command of any page is one, every link leads somewhere."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.core import spec
from visionadapt.core.spec_syntax import read
from visionadapt.pull.pull import pull
from visionadapt.sources import FolderSource

from .. import forked
from ..conftest import SMALL_BACKBONE
from .samples import few_samples

ROOT = Path(__file__).parents[2]
RUN = (
    "quickstart.md",
    "train.md",
    "choose-an-adapter.md",
    "follow.md",
    "evaluate.md",
    "predict.md",
    "export.md",
    "embed.md",
    "several-labels.md",
    "read-the-report.md",
    "speed.md",
    "reuse.md",
    "several-processes.md",
    "adapter-pattern.md",
    "own-source.md",
)
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")))
NOT_HERE = {
    "find holiday -name '*.png' -print0 | python -m visionadapt.predict runs/first - --out found.csv": "a pipe",
    "python -m visionadapt.predict runs/first https://example.org/cat.jpg": "tests have no network",
    "python -m visionadapt.push runs/first me/hats": "",
    "python -m visionadapt.predict hf://me/hats cat.jpg": "",
    "python -m visionadapt.train --data more --from hf://me/hats --out runs/second": "",
    ".venv/bin/pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu": "PyTorch is there",
    "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint host:29500 -m visionadapt.train"
    " --data photos --out runs/big": "it waits for another machine",
    "pip install pdoc": "tests/docs/test_reference.py builds the reference",
    "python docs/build_reference.py": "",
    "python3 -m venv .venv": "the environment that the tests run in is there",
    ".venv/bin/pip install .": "so is the package",
    ". .venv/bin/activate": "",
    "python -m visionadapt.train --data photos --backbone vit_small_patch16_224.augreg_in21k"
    " --weights vit_small.safetensors": "the weights are the reader's",
}
"""Lines that are not run, and why."""
MADE = {"docs/_build"}
"""Paths that a command makes."""
COMMAND = re.compile(r"(?:torchrun .*? |python |\.venv/bin/python )-m (visionadapt[.\w]*)(?: |$)")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of code in a language that means something here."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(python|sh|toml)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def lines(code: str) -> list[str]:
    """The commands of a block of shell; a line that ends with a backslash, or within quotes, goes on in the next."""
    found = [""]
    for line in code.splitlines():
        if found[-1].endswith("\\") or found[-1].count("'") % 2:
            found[-1] = f"{found[-1].removesuffix(chr(92)).rstrip()} {line.strip()}"
        else:
            found.append(line)
    return [re.sub(r"\s+# .*$", "", line) for line in found if line and not line.startswith("#")]


def arguments(line: str) -> list[str] | None:
    """What a line of shell says to `visionadapt`, whoever starts it; None for any other shell."""
    found = COMMAND.match(line)
    if found is None:
        return None
    tokens = shlex.split(line[found.end() :], comments=True)
    return [*found.group(1).split(".")[1:], *tokens]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages speak of, and the run that the quickstart ends with."""
    folder = tmp_path_factory.mktemp("workplace")
    few_samples(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("VISIONADAPT_CACHE", str(folder / "cache"))
        furnish(folder)
        run_page("docs/guides/quickstart.md")
        yield folder


def furnish(folder: Path) -> None:
    """Pictures, a table, a database, a frozen source and a file with an adapter layer."""
    names = []
    for kind in ("fish", "mug"):
        for path in sorted((folder / "sample_images/train" / kind).iterdir())[:12]:
            (folder / "photos" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / "photos" / kind)
            names.append((f"{kind}/{path.name}", kind))
    rows = [f"photos/{name},{kind},{'anna' if number % 3 else 'berta'}" for number, (name, kind) in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["file,label,sender", *rows]))
    shutil.copytree(folder / "photos", folder / "new-photos")
    database = sqlite3.connect(folder / "shop.db")
    database.execute("CREATE TABLE products (id INTEGER PRIMARY KEY, file TEXT, kind TEXT)")
    database.executemany("INSERT INTO products (file, kind) VALUES (?, ?)", names)
    database.commit()
    database.close()
    pull(FolderSource("photos"), "frozen", val=0.2)
    (folder / "holiday").mkdir()
    shutil.copy(folder / "sample_images/train/mug/small.png", folder / "holiday")
    (folder / "holiday/broken.jpg").write_bytes(b"not an image")
    shutil.copy(folder / "sample_images/train/fish/landscape.jpg", folder / "cat.jpg")
    tags = "\n".join(f"photos/{name},{kind}|{'round' if kind == 'mug' else 'wet'}" for name, kind in names)
    for table in ("tags.csv", "others.csv"):
        (folder / table).write_text(f"file,tags\n{tags}\n")
    marks = [f"photos/{name},{i % 2},{kind == 'mug':d},{kind == 'fish':d}" for i, (name, kind) in enumerate(names)]
    (folder / "marks.csv").write_text("\n".join(["file,cat,dog,bird", *marks]))
    pairs = [f"photos/{name},{tag}" for name, kind in names for tag in (kind, "pet" if kind == "fish" else "thing")]
    (folder / "rows.csv").write_text("\n".join(["file,tag", *pairs]))
    (folder / "list.txt").write_text("cat.jpg\nholiday/small.png\n")
    layers = next(code for _, code in blocks("docs/guides/adapter-pattern.md") if "Gain(" in code)
    (folder / "my_layers.py").write_text(layers)
    (folder / "my_sources.py").write_text(next(code for _, code in blocks("docs/guides/own-source.md")))
    for name in ("images", "others"):
        shutil.make_archive(name, "zip", "photos")


def run_page(page: str) -> None:
    """Run a page's blocks one after the other, Python's in one namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (language, code) in enumerate(blocks(page), 1):
        if language == "toml":
            Path("run.toml").write_text(code)
        elif language == "python":
            exec(compile(code, f"{page}, block {number}", "exec", dont_inherit=True), names)
        else:
            for line in lines(code):
                run_line(line)


def run_line(line: str) -> None:
    """Run a command in this process; training is short, on small images, where the page leaves that open.

    The default network learns the sample images; a small one learns all other data.
    """
    tokens = arguments(line)
    if tokens is None or line in NOT_HERE:
        assert line in NOT_HERE, f"not known how to run {line!r}"
        return
    trains = tokens[0] in {"train", "compare"}
    if trains and not {"--resume", "--epochs"} & {*tokens}:
        tokens += ["--epochs", "2"]
    if trains and "sample_images" not in tokens and not {"--resume", "--from", "--backbone"} & {*tokens}:
        tokens += ["--backbone", SMALL_BACKBONE, "--weights", "none"]
    if tokens[0] == "train" and not {"--resume", "--from", "--image-size"} & {*tokens}:
        tokens += ["--image-size", "64"]
    if tokens[0] == "compare":
        tokens += ["--minutes", "0.05"]
    if "--resume" in tokens and "--epochs" in tokens:
        tokens[tokens.index("--epochs") + 1] = "3"  # a page's first run has two epochs here
    if "--minutes" in tokens:
        tokens[tokens.index("--minutes") + 1] = "0.05"  # the first candidate is trained in any case
    assert shell.run(app, tokens) == 0, line


@pytest.mark.slow
def test_the_quickstart_leaves_what_it_promises(workplace: Path) -> None:
    for name in ("runs/samples/report.html", "runs/first/report.html", "predictions.csv"):
        assert (workplace / name).stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN[1:])
def test_a_page_runs(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("VISIONADAPT_CACHE", str(workplace / "cache"))
    forked.run_examples(monkeypatch)
    if page == "reuse.md" and not Path("runs/lora").exists():
        run_line("python -m visionadapt.train --data photos --adapter 'lora(blocks=last:4)' --out runs/lora")
    run_page(f"docs/guides/{page}")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("epochs = 2")
    for language, code in blocks(page):
        for line in lines(code) if language == "sh" else ():
            tokens = arguments(re.split(r"&& |\| ", line)[-1])
            if tokens is not None:
                words = ["@-" if token == "-" else token for token in tokens]  # as the command reads it
                app.parse_args(words, exit_on_error=False, print_error=False)
                for token in tokens:
                    check_settings(token)


def check_settings(text: str) -> None:
    """Where a text is that of a source or an adapter, it must have no fields that these lack."""
    for known in spec.NAMES.values():
        name = text.partition("(")[0]
        if "(" in text and name in known:
            module, _, kind = known[name].target.partition(":")
            fields = {item.name for item in dataclasses.fields(getattr(importlib.import_module(module), kind))}
            assert set(read(text).kwargs) <= fields, text


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w./-])((?:visionadapt|tests|benchmarks|docs|notebooks)/[\w./-]*\w)", text):
        if "NAME" not in path and path not in MADE:
            assert (ROOT / path).exists(), path


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"({Path(page).relative_to('docs').as_posix()})" in index, page
