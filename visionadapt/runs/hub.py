"""Run folders in repositories of the Hugging Face hub: `hf://ORG/NAME` is downloaded, and checked by its manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from visionadapt.errors import RunError, UsageError
from visionadapt.system import hub
from visionadapt.system.storage import file_sha256, read_file

FORMAT = 1
MANIFEST = "visionadapt.json"
FOLDER = "visionadapt"
"""Where a repository holds the run folder."""
FILES = (
    "config.json",
    "classes.json",
    "preprocess.json",
    "plan.json",
    "model.safetensors",
    "calibration.json",
    "calibration.safetensors",
    "backbone.safetensors",
)
"""All files that such a run folder may have: JSON and tensors, no code."""

_ADDRESS = re.compile(rf"hf://({hub.REPOSITORY.pattern})(?:@([\w.-]+))?")
_MOST_MANIFEST, _MOST_BYTES = 1 << 16, 1 << 33
_Result = TypeVar("_Result")


def check_repository(name: str) -> None:
    """Raise UsageError unless a text is ORG/NAME."""
    if not hub.REPOSITORY.fullmatch(name):
        raise UsageError(f"{name!r} is no repository of the hub; name it ORG/NAME")


def on_hub(run: str | Path) -> bool:
    """Whether a text names a repository of the hub, in which nothing can be written."""
    return str(run).startswith(hub.SCHEME)


def local_run(run: str | Path) -> Path:
    """Return the run folder that a path names, or that `hf://ORG/NAME` or `hf://ORG/NAME@REVISION` holds.

    A repository is downloaded into the hub's own cache. Its files are those of `FILES` alone, of the sizes and SHA-256
    that its manifest names. Call this only for what the user has typed: it contacts the hub.

    Raises:
        RunError: the repository is not there, holds no run, or not the files that its manifest names.
    """
    if not on_hub(run):
        return Path(run)
    match = _ADDRESS.fullmatch(str(run))
    if match is None:
        raise RunError(f"{run} names no repository; write hf://ORG/NAME, with @ and a revision behind it if need be")
    repository, revision = match.groups()
    manifest = _fetched(str(run), repository, MANIFEST, revision, _MOST_MANIFEST)
    files = _listed(str(run), read_file(manifest, MANIFEST, _MOST_MANIFEST))
    for name, facts in files.items():
        path = _fetched(str(run), repository, f"{FOLDER}/{name}", manifest.parent.name, facts["bytes"])
        if path.stat().st_size != facts["bytes"] or file_sha256(path) != facts["sha256"]:
            raise RunError(f"{run}: {name} is not the file that its {MANIFEST} names; download it again")
    return manifest.parent / FOLDER


def run_name(folder: Path) -> str:
    """Return the name of a run folder: its own, or ORG/NAME of the repository that `local_run` downloaded it from."""
    snapshot = hub.snapshot_of(str(folder.absolute()))
    downloaded = snapshot is not None and snapshot.kind == "models" and snapshot.below == FOLDER
    return snapshot.repository if snapshot is not None and downloaded else folder.absolute().name


def _listed(run: str, content: bytes) -> Mapping[str, Mapping[str, Any]]:
    """Return the files of a manifest by name, with their sizes and SHA-256."""
    try:
        manifest = json.loads(content)
        files: dict[str, dict[str, Any]] = manifest["files"]
        sound = manifest["format"] == FORMAT and {"classes.json", "model.safetensors", "plan.json"} <= set(files)
        sound = sound and all(type(each["bytes"]) is int and type(each["sha256"]) is str for each in files.values())
        sound = sound and set(files) <= set(FILES) and sum(each["bytes"] for each in files.values()) <= _MOST_BYTES
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise RunError(f"{run}: its {MANIFEST} is not this version's; push it again")
    return files


def _fetched(run: str, repository: str, name: str, revision: str | None, most: int) -> Path:
    """Return a file of a repository from the hub's cache, or download it if it has at most so many bytes."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, name, revision=revision) if revision else None
    if isinstance(cached, str):
        return Path(cached)
    url = hf_hub_url(repository, name, revision=revision, endpoint=constants.ENDPOINT)
    if not constants.HF_HUB_OFFLINE:
        size = _asked(run, lambda: get_hf_file_metadata(url, endpoint=constants.ENDPOINT).size)
        if size is None or size > most:
            raise RunError(f"{run}: {name} has {size} bytes, more than its {most:,}; do not use it")
    return Path(_asked(run, lambda: hf_hub_download(repository, name, revision=revision, endpoint=constants.ENDPOINT)))


def _asked(run: str, ask: Callable[[], _Result]) -> _Result:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return ask()
    except Exception as error:  # whatever the hub's client raises
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise RunError(f"{run} holds no run of visionadapt; `visionadapt push` writes one") from error
        raise RunError(hub.refusal(run, error)) from error
