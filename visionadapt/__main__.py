"""`visionadapt COMMAND`: the same commands as `python -m visionadapt.COMMAND`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

from visionadapt.commands import shell

COMMANDS = (
    "train",
    "compare",
    "finish",
    "evaluate",
    "predict",
    "report",
    "audit",
    "pull",
    "runs",
    "cache",
    "export",
    "push",
    "verify",
    "embed",
    "merge",
    "search",
    "serve",
)
"""Every command, in the order of the help."""


def module_of(command: str) -> str:
    """Return the module with the `app` of a command: a file beside this one, or `__main__` in the room of its name."""
    name = f"visionadapt.{command}"
    found = find_spec(name)
    return f"{name}.__main__" if found and found.submodule_search_locations else name


app = shell.app(
    "visionadapt",
    "visionadapt train --data photos",
    "visionadapt COMMAND --help",
    about="Fine-tune pretrained vision backbones on your own images.",
)
for command in COMMANDS:
    app.command(import_module(module_of(command)).app)


def main() -> NoReturn:
    """Run the command that the first word names, and exit."""
    shell.main(app)


if __name__ == "__main__":
    main()
