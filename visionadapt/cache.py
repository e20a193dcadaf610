"""`python -m visionadapt cache`: see what the cache keeps, and clear it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from visionadapt.commands import shell

app = shell.app("cache", "See what the frozen part of models left on the disk, and clear it.")


@app.default
def main(
    *,
    cache: str | None = None,
    clear: Annotated[bool, Parameter(negative=())] = False,
    limit: str | None = None,
) -> None:
    """See what the frozen part of models left on the disk, and clear it.

    Parameters
    ----------
    cache
        The cache's folder; by default visionadapt in the user's cache folder.
    clear
        Remove everything that no command is using.
    limit
        Remove what was unused for longest until the rest is no larger, such as 5GB.
    """
    from pathlib import Path

    from visionadapt.console.reporter import Reporter
    from visionadapt.frozen.cache.eviction import make_room, read_size, spaces, written_size
    from visionadapt.frozen.cache.store import default_folder

    folder = Path(cache) if cache else default_folder()
    reporter = Reporter()
    if clear or limit is not None:
        gone = make_room(folder, 0 if clear else read_size(str(limit)))
        reporter.say(f"removed {len(gone)} of the spaces, {written_size(sum(space.bytes for space in gone))}")
    kept = spaces(folder)
    if not kept:
        reporter.say(f"{folder} keeps nothing")
        return
    reporter.say(f"{folder} keeps {written_size(sum(space.bytes for space in kept))}")
    reporter.table("spaces", {space.folder.name: str(space) for space in kept})


if __name__ == "__main__":
    shell.main(app)
