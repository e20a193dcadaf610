"""The modules form one total order, and importing or asking for help stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import visionadapt

ROOT = Path(visionadapt.__file__).parent
ORDER = [
    {"errors"},
    {"sites"},
    {"spec"},
    {"selections"},
    {"records"},
    {"plaintext"},
    {"storage"},
    {"tables"},
    {"settings"},
    {"configuration"},
    {"process"},
    {"distributed"},
    {"noise"},
    {"sources", "images", "adapters", "tasks", "backbones"},
    {"figures"},
    {"intervals"},
    {"balancing"},
    {"stratification"},
    {"shuffling"},
    {"splits"},
    {"data"},
    {"model"},
    {"shared"},
    {"preparation"},
    {"identities"},
    {"cache"},
    {"spaces"},
    {"measurements"},
    {"folding"},
    {"fusing"},
    {"arithmetic"},
    {"engines"},
    {"devices"},
    {"plan"},
    {"features"},
    {"stopwatch"},
    {"planning"},
    {"optimization"},
    {"baselines"},
    {"epochs"},
    {"trainer"},
    {"loop"},
    {"distance"},
    {"calibration"},
    {"prediction"},
    {"outputs"},
    {"bulk"},
    {"multilabel_evaluation"},
    {"ledger"},
    {"runs"},
    {"parts"},
    {"journal"},
    {"manifests"},
    {"live"},
    {"console"},
    {"summaries"},
    {"trackers"},
    {"evaluation"},
    {"validation"},
    {"auditing"},
    {"options"},
    {"overview"},
    {"heatmaps"},
    {"reporting"},
    {"opening"},
    {"settling"},
    {"training"},
    {"command"},
    {"train", "evaluate", "predict", "pull", "report", "audit", "manage_cache", "list_runs"},
    {"__main__"},
]
LAYER = {name: place for place, names in enumerate(ORDER) for name in names}


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_by(path: Path) -> set[str]:
    """First-level modules of visionadapt that a file imports anywhere, but for type checking."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "visionadapt":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("visionadapt."):
            names.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("visionadapt.")}
    return names - {"__version__"}


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_earlier_ones(path: Path) -> None:
    own = module_of(path)
    for other in imported_by(path) - {own}:
        assert LAYER[other] < LAYER[own], f"{own} must not import {other}"


@pytest.mark.parametrize(
    "module", ["errors", "sites", "spec", "selections", "records", "plaintext", "storage", "tables", "settings"]
)
def test_the_lowest_layers_need_the_standard_library_alone(module: str) -> None:
    loaded = after(f"import visionadapt.{module}")
    assert not loaded & {"torch", "numpy", "PIL", "timm", "cyclopts", "rich"}


@pytest.mark.parametrize(
    "statement",
    [
        "import visionadapt",
        "import visionadapt; dir(visionadapt)",
        *(
            f"from visionadapt.{name} import app; app('--help', result_action='return_value')"
            for name in ("train", "evaluate", "predict", "pull", "report", "audit", "list_runs")
        ),
        "import sys; sys.argv[1:] = ['--help']; from visionadapt.__main__ import main; main()",
        "from visionadapt import sources; list(sources.FolderSource('.', labelled=False))",
    ],
)
def test_these_load_no_torch(statement: str) -> None:
    assert not after(statement) & {"torch", "timm", "albumentations"}


def test_no_public_name_is_a_submodule_that_would_replace_it() -> None:
    submodules = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    functions = set(visionadapt.__all__) - {"adapters", "backbones", "errors", "images", "sources", "tasks"}
    assert not functions & submodules


def test_every_public_name_is_there() -> None:
    for name in visionadapt.__all__:
        assert getattr(visionadapt, name) is not None
    with pytest.raises(AttributeError):
        _ = visionadapt.no_such_name


def after(statement: str) -> set[str]:
    """Top-level modules that are loaded after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint('loaded', *{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(result.stdout.splitlines()[-1].split())
