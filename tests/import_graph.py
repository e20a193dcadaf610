"""Which module of the package imports which, read from the code itself; types-only imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Graph = Mapping[str, set[str]]


def module_graph(root: Path) -> dict[str, set[str]]:
    """For every module below a package's folder, the modules of the package that it imports anywhere."""
    names = {path: _name(path, root) for path in sorted(root.rglob("*.py"))}
    known = set(names.values())
    return {name: _imported(path, known, root.name) - {name} for path, name in names.items()}


def children_graph(graph: Graph, package: str) -> dict[str, set[str]]:
    """The same arrows between what lies directly in `package`: modules and packages. Its own `__init__` is left out.

    So is the `__main__` of a package inside it: that is a command, which nothing imports and which may import anything.
    """
    children: dict[str, set[str]] = {}
    for name, imported in graph.items():
        own = None if name.endswith(".__main__") and name != f"{package}.__main__" else _child(name, package)
        if own is not None:
            others = {_child(other, package) for other in imported} - {own, None}
            children.setdefault(own, set()).update(other for other in others if other is not None)
    return children


def packages(root: Path) -> list[str]:
    """Every package in a package's folder that has modules, itself included."""
    names = {_name(path, root) for path in root.rglob("*.py")}
    return sorted({name.rpartition(".")[0] for name in names if "." in name})


def cycle(graph: Graph) -> list[str]:
    """One cycle of the graph; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def order(graph: Graph) -> Iterator[str]:
    """The nodes, each behind all that it imports; those of one floor by name."""
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    while sorter.is_active():
        floor = sorted(sorter.get_ready())
        yield from floor
        sorter.done(*floor)


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _child(name: str, package: str) -> str | None:
    below = name.removeprefix(f"{package}.")
    return None if below == name else below.split(".")[0]


def _imported(path: Path, known: set[str], package: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            module = str(node.module)
            for alias in node.names:
                found |= {module, f"{module}.{alias.name}"}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found & known
