"""`visionadapt COMMAND`: the same commands as `python -m visionadapt.COMMAND`."""

from __future__ import annotations

from importlib import import_module
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
"""Every command: a module of this package with an `app`."""

app = shell.app(
    "visionadapt",
    "visionadapt train --data photos",
    "visionadapt COMMAND --help",
    about="Fine-tune pretrained vision backbones on your own images.",
)
for command in COMMANDS:
    app.command(import_module(f"visionadapt.{command}").app)


def main() -> NoReturn:
    """Run the command that the first word names, and exit."""
    shell.main(app)


if __name__ == "__main__":
    main()
