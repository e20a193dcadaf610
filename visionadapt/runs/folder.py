"""Make the run folder and read its JSON files; loads no torch.

`docs/reference/run-folder.md` describes every file of a run folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionadapt.errors import RunError
from visionadapt.system.digest import BLANK, check_digest, sealed
from visionadapt.system.locks import FolderLocks
from visionadapt.system.storage import json_text, sync_folder, write_bytes, write_json, write_text

FORMAT = 1
_DIGEST = "digest"


def check_free(out: Path, overwrite: bool) -> None:
    """Raise RunError if a run folder cannot be made at `out`: it exists already, or holds something else."""
    check_replaceable(out, overwrite, is_run(out), "run folder", "give another --out, --resume it, or --overwrite it")


def check_replaceable(
    out: Path, overwrite: bool, own: bool, kind: str, ways: str = "give another --out, or --overwrite it"
) -> None:
    """Raise RunError if `out` exists and is not to be overwritten, or is neither empty nor of the kind that is made.

    Args:
        out: the folder to make.
        overwrite: whether to replace it.
        own: whether it is of the kind.
        kind: what the kind is called.
        ways: what to do if it exists.
    """
    if out.exists() and not overwrite:
        raise RunError(f"{out} is there already; {ways}")
    if out.exists() and not own and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is no {kind}, so it is not overwritten; give another --out")


def create(
    out: Path, files: Mapping[str, Mapping[str, Any]], overwrite: bool = False, locks: FolderLocks | None = None
) -> Path:
    """Make a run folder that holds some JSON files, `config.json` among them, in one step.

    With `locks`, the folder is locked from its first moment.

    Raise RunError if it exists and `overwrite` is not set, if it is no run folder, cannot be made, or another process
    is using it.
    """
    check_free(out, overwrite)
    if locks is None:
        with FolderLocks() as own:
            return create(out, files, overwrite, own)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".run-", dir=out.parent) as beside:
            fresh = Path(beside) / "new"
            fresh.mkdir()
            for name, content in files.items():
                if name == "config.json":
                    write_json(fresh / name, {"format": FORMAT, **content})
                else:
                    write_sealed(fresh / name, content)
            locks.take(fresh)
            if overwrite and out.exists():
                locks.take(out)
                out.rename(Path(beside) / "old")
            fresh.rename(out)
            locks.moved(fresh, out)
        sync_folder(out.parent)
    except OSError as error:
        raise RunError(f"{out} cannot be made ({error.strerror}); give another --out") from error
    return out


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run's `config.json`."""
    try:
        config = json.loads(_text(folder / "config.json"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "format" in config


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, atomically."""
    write_bytes(path, sealed(json_text({_DIGEST: BLANK, **value}).encode("utf-8", "backslashreplace")))


def read_json(run: Path, name: str, kind: type = dict) -> Any:
    """Read one of a run's JSON files, without its digest; raise RunError if it is missing, damaged or not a `kind`."""
    try:
        value = json.loads(_text(run / name))
        if not isinstance(value, kind):
            raise ValueError(f"it holds no JSON {'list' if kind is list else 'object'}")
        if isinstance(value, dict) and value.pop(_DIGEST, None) is not None:
            check_digest(run / name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(run, name) from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{run / name} cannot be read ({error}); restore it, or train again") from error
    return value


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`, one result of `Epoch.metrics` per complete epoch; raise RunError if it is damaged."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in _text(path).splitlines()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); start a new run") from error
    return lines


def write_metrics(run: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replace `metrics.jsonl`, atomically."""
    write_text(run / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def missing(run: Path, name: str) -> RunError:
    """Return the error for a file that a folder does not have."""
    what = "has no trained model yet; --resume or finish it" if is_run(run) else "is no run folder"
    return RunError(f"{run} {what} ({name} is missing)")


def check_regular(path: Path) -> None:
    """Raise ValueError for what is not a regular file, such as a pipe, since opening it could block."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a regular file")


def _text(path: Path) -> str:
    check_regular(path)
    return path.read_text(encoding="utf-8")
