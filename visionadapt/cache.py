"""`python -m visionadapt.cache`: show what the feature cache holds, and clear it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from visionadapt.commands import shell
from visionadapt.errors import UsageError
from visionadapt.runs.options import Flag
from visionadapt.system.text import counted, written_size

Removed = Annotated[list[str] | None, Parameter(negative=())]

app = shell.app(
    "cache",
    "python -m visionadapt.cache",
    "python -m visionadapt.cache --limit 5GB",
    "python -m visionadapt.cache --remove 3f2a",
    "python -m visionadapt.cache --clear",
)


@app.default
def main(*, cache: str | None = None, clear: Flag = False, limit: str | None = None, remove: Removed = None) -> None:
    """Show the cached outputs of frozen layers on disk, and for which images; remove them.

    Parameters
    ----------
    cache
        Folder of the cache; by default visionadapt in the user's cache folder.
    clear
        Remove everything that no running command uses.
    limit
        Remove the entries unused for longest until the rest is at most this size, such as 5GB.
    remove
        Remove the entry whose name begins so; may be repeated.
    """
    from visionadapt.console.reporter import Reporter
    from visionadapt.frozen.cache import eviction
    from visionadapt.frozen.cache.eviction import make_room, named, read_size, spaces
    from visionadapt.system.cache_folder import default_folder

    folder = Path(cache) if cache else default_folder()
    reporter = Reporter()
    for space in [named(spaces(folder), name) for name in remove or ()]:
        if not eviction.remove(space):
            raise UsageError(f"--remove {space.folder.name}: a running command uses it; wait until that has ended")
        reporter.say(f"removed {space.folder.name}, {written_size(space.bytes)}")
    if clear or limit is not None:
        removed = make_room(folder, 0 if clear else read_size(str(limit)))
        size = written_size(sum(space.bytes for space in removed))
        reporter.say(f"removed {counted(len(removed), 'entry', 'entries')}, {size}")
    entries = spaces(folder)
    if not entries:
        reporter.say(f"{folder} is empty")
        return
    reporter.say(f"{folder} holds {written_size(sum(space.bytes for space in entries))}")
    reporter.table("entries", {space.folder.name: str(space) for space in entries})


if __name__ == "__main__":
    shell.main(app)
