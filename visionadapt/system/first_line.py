"""The first line of a command that loads PyTorch, shown in a terminal before anything else is imported.

Importing PyTorch takes seconds, and even the parser of the command line takes half a second, several on a busy machine.
So the package's `__init__` calls `begin`, which needs nothing but the words that the process was started with. The line
stays once the command begins, and is erased if it ends with an error before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

LINE = "loading PyTorch …"

COMMANDS = frozenset(("audit", "compare", "evaluate", "export", "predict", "report", "serve", "train"))
"""Commands that load PyTorch, and say so when they begin."""

_SILENT = frozenset(("--config", "--help", "-h", "--json", "--quiet", "--version"))
"""Words after which a command shows no such line; a file of --config may ask for quiet."""

_shown = False


def begin() -> None:
    """Show the line if this process has just begun, in a terminal, as a command that loads PyTorch."""
    global _shown
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return
    if os.environ.get("RANK", "0") == "0" and loads_torch(sys.argv, sys.orig_argv):
        _shown = True
        _write(LINE)


def keep() -> bool:
    """End the line, which then stays on the screen; return False if there is none."""
    return _end("\n")


def erase() -> bool:
    """Take the line off the screen; return False if there is none."""
    return _end("\r\x1b[2K")


def loads_torch(argv: Sequence[str], started_with: Sequence[str]) -> bool:
    """Whether a process that was started with these words is a command that loads PyTorch, and not a silent one.

    While `python -m visionadapt.train` imports the package, `argv` begins with `-m`, and only the second sequence,
    which is `sys.orig_argv`, has the name of the module.

    >>> loads_torch(["-m", "photos"], ["python", "-m", "visionadapt.train", "photos"])
    True
    >>> loads_torch(["/usr/bin/visionadapt", "runs"], ["python", "/usr/bin/visionadapt", "runs"])
    False
    """
    package, words = __name__.partition(".")[0], list(argv[1:])
    if argv[:1] == ["-m"]:
        module = next((word for word in started_with if word.partition(".")[0] == package), "")
        words = [*module.split(".")[1:2], *words]
    elif not argv or os.path.basename(argv[0]).removesuffix(".exe") != package:  # noqa: PTH119 - pathlib takes time
        return False
    return bool(words) and words[0] in COMMANDS and not _SILENT & {*words}


def _end(text: str) -> bool:
    global _shown
    was, _shown = _shown, False
    if was:
        _write(text)
    return was


def _write(text: str) -> None:
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(text.encode(encoding, "replace").decode(encoding))
    sys.stderr.flush()
