"""`visionadapt COMMAND`, the same commands as `python -m visionadapt.COMMAND`."""

from __future__ import annotations

from typing import NoReturn

from visionadapt.commands import shell

app = shell.app("visionadapt", "Fine-tune pretrained vision backbones on your own pictures.")
for name in ("train", "evaluate", "predict", "report", "audit", "pull"):
    app.command(f"visionadapt.{name}:app", name=name)
app.command("visionadapt.cache:app", name="cache")
app.command("visionadapt.runs:app", name="runs")


def main() -> NoReturn:
    """Run the command that the first word names, and end."""
    shell.main(app)


if __name__ == "__main__":
    main()
