"""Print the README's list of files: each module's name and the first line of its docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ["", "sources", "images", "backbones", "adapters", "tasks", "auditing", "reporting", "trackers"]


def tables() -> Iterator[str]:
    """One Markdown table a package."""
    for package in PACKAGES:
        folder = ROOT / "visionadapt" / package
        paths = sorted(folder.glob("*.py"), key=lambda path: (path.name != "__init__.py", path.name))
        rows = [f"| `{path.name}` | {purpose(path)} |" for path in paths]
        yield "\n".join([f"| `{folder.relative_to(ROOT).as_posix()}/` | |", "|---|---|", *rows])


def purpose(path: Path) -> str:
    """What a module says of itself in its first line."""
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return told.splitlines()[0].replace("|", "\\|") if told else ""


if __name__ == "__main__":
    print("\n\n".join(tables()))  # noqa: T201
