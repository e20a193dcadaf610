"""Every notebook runs from top to bottom with nothing on stderr, and finds the images from the root as well."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .. import forked
from .samples import few_samples

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONG = re.compile(r"(\b(?:epochs|steps)=|\b_ in range\()\d+")
"""How long a notebook trains, which is for what its readers see."""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the repository to a notebook, so that what it writes stays out of the real one."""
    text = "\n".join(cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells)
    named = {"/".join(found) for found in re.findall(r'(\w+)(?:/|" / ")(\w+\.(?:jpg|png|gif))', text)}
    few_samples(tmp_path, train=4, val=0, named=named)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # tqdm, which albumentations brings along, asks for ipywidgets in any notebook.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    return tmp_path


@pytest.fixture(autouse=True)
def kernels_in_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel imports PyTorch for longer than most cells take."""
    forked.run_kernels(monkeypatch)


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run the cells in a kernel that starts in a folder."""
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_without_errors_and_warnings(path: Path, checkout: Path) -> None:
    """Where it trains, it does so for two steps."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = LONG.sub(r"\g<1>2", cell.source)
    run(notebook, checkout / "notebooks")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.slow
def test_notebooks_find_the_images_from_the_root_too(checkout: Path) -> None:
    """Only the line that sets `SAMPLES` depends on the folder: it is run there, and no other names the images."""
    found = []
    for path in NOTEBOOKS:
        lines = [line for cell in nbformat.read(path, as_version=4).cells for line in cell.source.splitlines()]
        found += [line for line in lines if "sample_images" in line and not line.startswith("#")]
    assert len(found) == len(NOTEBOOKS) and all(line.startswith("SAMPLES = ") for line in found), found
    cell = nbformat.v4.new_code_cell("from pathlib import Path\n" + "\nassert SAMPLES.is_dir()\n".join([*found, ""]))
    run(nbformat.v4.new_notebook(cells=[cell]), checkout)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_small_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run python docs/run_notebooks.py"
    outputs = [output for cell in code for output in cell.outputs]
    assert len(outputs) >= len(code) / 2
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert path.stat().st_size < 400_000
