"""What `export` and `verify` share: the libraries that they need, and the outcome of checks on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from visionadapt.errors import UsageError

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.export.check import Check


def check_libraries() -> None:
    """Raise UsageError if the libraries of the extra `onnx` are missing."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UsageError(f"an ONNX export needs {', '.join(missing)}: pip install 'visionadapt[onnx]'")


def report(reporter: Reporter, checks: Sequence[Check]) -> int:
    """Print the outcome of each check; return 1 if one failed, else 0."""
    for check in checks:
        lines = [f"{check.path}: {'agrees' if check.passed else 'WRONG'}", *check.problems, *check.notes]
        reporter.say("; ".join(lines[:2]) if check.passed else "\n  ".join(lines))
        facts = {"path": check.path, "passed": check.passed}
        reporter.event("check", {**facts, "problems": list(check.problems), "notes": list(check.notes)})
    return int(not all(check.passed for check in checks))
