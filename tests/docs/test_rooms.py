"""Rooms import one way, and importing or asking for help stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import visionadapt
from visionadapt.__main__ import COMMANDS, module_of

from ..import_graph import Graph, children_graph, cycle, module_graph, packages

ROOT = Path(visionadapt.__file__).parent


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Without the package's own `__init__`, which hands out names of every room when they are asked for."""
    return {name: imported for name, imported in module_graph(ROOT).items() if name != "visionadapt"}


def test_no_module_is_in_an_import_cycle(graph: Graph) -> None:
    assert len(graph) > 100
    assert cycle(graph) == []


def test_nothing_imports_a_command(graph: Graph) -> None:
    commands = {module_of(name) for name in COMMANDS}
    assert commands <= {*graph}
    assert not commands & set().union(*graph.values())
    assert {name for name in graph if name.endswith(".__main__")} - commands == {"visionadapt.__main__"}


@pytest.mark.parametrize("package", packages(ROOT))
def test_what_lies_in_a_package_imports_one_way(graph: Graph, package: str) -> None:
    children = children_graph(graph, package)
    assert children and cycle(children) == []


def test_a_cycle_would_be_found(tmp_path: Path) -> None:
    for name, text in {
        "__init__": "",
        "a/__init__": "",
        "a/one": "def later():\n    from house.b import two\n",
        "b/__init__": "",
        "b/two": "from house.a import three",
        "a/three": "",
    }.items():
        path = tmp_path / "house" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    graph = module_graph(tmp_path / "house")
    assert cycle(graph) == []
    assert set(cycle(children_graph(graph, "house"))) == {"a", "b"}


def test_the_top_level_is_small_and_every_package_says_what_it_is_for() -> None:
    names = {path.stem for path in ROOT.glob("*.py")}
    assert names - {*COMMANDS} == {"__init__", "__main__", "errors", "version"}
    assert len(names) <= 16
    for path in ROOT.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"


LOWEST = (
    "errors",
    "core.sites",
    "core.spec",
    "core.spec_syntax",
    "core.records",
    "core.columns",
    "core.naming",
    "core.settings",
    "system.text",
    "system.storage",
    "system.csv_text",
)


def test_the_lowest_layers_need_the_standard_library_alone() -> None:
    """One after the other in one interpreter: what one has loaded is what is new after it."""
    for statement, loaded in after(*(f"import visionadapt.{module}" for module in LOWEST)).items():
        assert not loaded & {"torch", "numpy", "PIL", "timm", "cyclopts", "rich"}, statement


@pytest.mark.slow
def test_these_load_no_torch() -> None:
    statements = (
        "import visionadapt",
        "import visionadapt; dir(visionadapt)",
        "from visionadapt import sources; list(sources.FolderSource('.', labelled=False))",
        *(f"from {module_of(name)} import app; app('--help', result_action='return_value')" for name in COMMANDS),
        "from visionadapt.__main__ import app; app('--help', result_action='return_value')",
    )
    for statement, loaded in after(*statements).items():
        assert not loaded & {"torch", "timm", "albumentations"}, statement


def test_only_commands_share_their_name_with_a_public_function() -> None:
    """Importing a submodule replaces the attribute of its name; `tests/commands/test_api.py` checks that these stay."""
    submodules = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    functions = set(visionadapt.__all__) - {"adapters", "backbones", "errors", "images", "sources", "tasks"}
    assert functions & submodules == {"train", "evaluate", "audit"}


def test_every_public_name_is_there() -> None:
    for name in visionadapt.__all__:
        assert getattr(visionadapt, name) is not None
    with pytest.raises(AttributeError):
        _ = visionadapt.no_such_name


AFTER = """
import sys
for statement in sys.argv[1:]:
    exec(statement, {})
    print("loaded", *{name.split(".")[0] for name in sys.modules})
"""


def after(*statements: str) -> dict[str, set[str]]:
    """Top-level modules that are loaded after each of the statements, which a fresh interpreter runs in this order."""
    command = [sys.executable, "-c", AFTER, *statements]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent)
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("loaded ")]
    return {statement: set(line) for statement, line in zip(statements, lines, strict=True)}
