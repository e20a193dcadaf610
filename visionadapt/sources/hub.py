"""Data sets on the Hugging Face hub: `hf://datasets/ORG/NAME` is downloaded into the hub's cache, and read there."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property
from glob import escape, has_magic
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from visionadapt.core.naming import listed, natural_key
from visionadapt.errors import SourceError
from visionadapt.sources.braces import expanded
from visionadapt.sources.walk import is_ignored
from visionadapt.system import hub
from visionadapt.system.text import counted, written_size

_log = logging.getLogger("visionadapt")
_ADDRESS = re.compile(
    rf"hf://datasets/(?P<repository>{hub.REPOSITORY.pattern})"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[^/@\s]+))?(?P<path>/.*)?",
    re.DOTALL,
)
_REVISION = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*")
_LEFT_OUT = ("*.py", ".*", "*/.*")
"""What is not downloaded: the loading scripts of the `datasets` library, which nothing here runs, and hidden files."""


@dataclass(frozen=True)
class HubAddress:
    """A data set on the hub, or what lies in it.

    Attributes:
        repository: ORG/NAME.
        revision: branch, tag or commit; None for the main branch.
        path: of a file or folder in the repository, or a pattern of files; empty for the whole.
    """

    repository: str
    revision: str | None
    path: str

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hf://datasets/{self.repository}{at}{f'/{self.path}' if self.path else ''}"

    def below(self, name: str) -> HubAddress:
        """Return the address of what has this name below the folder."""
        return replace(self, path="/".join(filter(None, (self.path, name))))

    def above(self) -> HubAddress:
        """Return the address of the folder that this one lies in."""
        return replace(self, path=self.path.rpartition("/")[0])


def is_hub_address(text: object) -> bool:
    """Whether a text is meant as a place on the hub."""
    return isinstance(text, str) and text.startswith(hub.SCHEME)


def hub_address(text: str) -> HubAddress:
    """Read an address; raise SourceError where it names no data set, or a path that is none in a repository."""
    match = _ADDRESS.fullmatch(text.strip())
    rest = text.strip().removeprefix(hub.SCHEME)
    if match is None:
        named = hub.REPOSITORY.match(rest) and not rest.startswith(("datasets/", "models/", "spaces/"))
        raise SourceError(
            f"{text} names no data set; write hf://datasets/{rest if named else 'ORG/NAME'}"
            f"{'' if named else ', with @REVISION and /PATH behind it if need be'}"
        )
    revision, path = unquote(match["revision"] or ""), (match["path"] or "").strip("/")
    parts = path.split("/") if path else []
    if any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts):
        raise SourceError(f"{text}: no file in a repository has such a path; write it without .. and empty parts")
    if revision and (_REVISION.fullmatch(revision) is None or ".." in revision):
        raise SourceError(f"{text}: {revision!r} is no revision; give a branch, a tag or a commit")
    return HubAddress(match["repository"], revision or None, path)


@dataclass(frozen=True)
class HubFiles:
    """A data set at one commit: the names of its files, which are downloaded when they are asked for.

    Attributes:
        address: what it was opened by.
        folder: its snapshot in the hub's cache, which may be incomplete or not there yet.
        files: the sizes of all files by their names; None where the size is not known.
        online: whether what is missing can be downloaded.
    """

    address: HubAddress
    folder: Path
    files: Mapping[str, int | None]
    online: bool

    @cached_property
    def names(self) -> list[str]:
        """The files that the address means, below its path where that is a folder, in natural order.

        Hidden files and code are left out.
        """
        path, start = self.address.path, f"{self.address.path}/" if self.address.path else ""
        if self.is_file:
            return [path]
        if self.is_pattern:
            return sorted(_filtered(self.files, *self._patterns()), key=natural_key)
        below = (name[len(start) :] for name in self.files if name.startswith(start) and not name.endswith(".py"))
        return sorted((name for name in below if not any(map(is_ignored, name.split("/")))), key=natural_key)

    @property
    def is_file(self) -> bool:
        """Whether the address names one file."""
        return self.address.path in self.files

    @cached_property
    def is_pattern(self) -> bool:
        """Whether the address is a pattern of files, such as `data/train-*.parquet` or `{000..011}.tar`."""
        path = self.address.path
        there = self.is_file or any(name.startswith(f"{path}/") for name in self.files)
        return not there and (has_magic(path) or "{" in path)

    @property
    def local(self) -> str:
        """Where on disk the address leads."""
        return os.path.join(self.folder, *self.address.path.split("/")) if self.address.path else str(self.folder)  # noqa: PTH118

    def fetched(self, suffixes: Sequence[str] = ()) -> str:
        """Return `local`, after a download of what is missing there.

        Args:
            suffixes: of a folder, take only the files that end so: those in it, or where it has none those in its
                folders.

        Raises:
            SourceError: the download fails, or is not possible offline.
        """
        allowed, ignored = self._patterns(suffixes)
        names = _filtered(self.files, allowed, ignored)
        if not names:
            what = f"{' or '.join(suffixes)} file" if suffixes else "file but code and hidden ones"
            raise SourceError(f"{self.address}: there is no {what}; its files are {_some(self)}")
        self._download(names, allowed, ignored)
        return self.local

    def fetched_file(self, name: str) -> str:
        """Return where one of `names` is on disk, after a download if it is missing; raise as `fetched` does."""
        path = name if self.is_file or self.is_pattern else self.address.below(name).path
        self._download([path], [escape(path)], [])
        return os.path.join(self.folder, *path.split("/"))  # noqa: PTH118

    def _patterns(self, suffixes: Sequence[str] = ()) -> tuple[list[str] | None, list[str]]:
        """What to download and what not, as the hub's client has it: its `*` stands for slashes, too."""
        path = self.address.path
        if self.is_pattern:
            patterns = expanded(path)
            return patterns, [*_LEFT_OUT, _deeper(max(each.count("/") for each in patterns))]
        start = f"{escape(path)}/" if path else ""
        if suffixes and not self.is_file:
            level = min((name.count("/") for name in self.names if name.lower().endswith(tuple(suffixes))), default=0)
            return [f"{start}*{suffix}" for suffix in suffixes], [*_LEFT_OUT, _deeper(start.count("/") + level)]
        return ([escape(path), f"{start}*"] if path else None), list(_LEFT_OUT)

    def _download(self, names: Sequence[str], allowed: list[str] | None, ignored: list[str]) -> None:
        from huggingface_hub import snapshot_download

        missing = [name for name in names if not (self.folder / name).exists()]
        if missing and not self.online:
            raise SourceError(
                f"{self.address}: {len(missing)} of {counted(len(names), 'file')} are not in the hub's cache, "
                f"{hub.unreached()}"
            )
        if not self.online or (not missing and self._is_known):
            return
        if missing:
            size = written_size(sum(self.files[name] or 0 for name in missing))
            _log.warning("%s: downloading %s, %s", self.address, counted(len(missing), "file"), size)
        try:
            with hub.quiet(), _bars_in_terminals():
                found = snapshot_download(
                    self.address.repository,
                    repo_type="dataset",
                    revision=self.address.revision,
                    endpoint=_endpoint(),
                    allow_patterns=allowed,
                    ignore_patterns=ignored,
                )
        except Exception as error:  # whatever the hub's client raises
            raise SourceError(hub.refusal(str(self.address), error)) from error
        if Path(found).name != self.folder.name or not all((self.folder / name).exists() for name in missing):
            raise SourceError(f"{self.address} has changed or broken off while it was downloaded; repeat the command")

    @property
    def _is_known(self) -> bool:
        """Whether the cache has noted which commit the revision is, so that it is found offline."""
        if hub.COMMIT.fullmatch(self.address.revision or ""):
            return True
        note = self.folder.parent.parent / "refs" / (self.address.revision or "main")
        return note.is_file() and note.read_text().strip() == self.folder.name


def hub_files(text: str) -> HubFiles:
    """Ask the hub for a data set's present commit and its files; or its cache, where the hub cannot be reached.

    Call this only for what the user has typed: it contacts the hub.

    Raises:
        SourceError: the address names no data set, there is none, it has no such file, or it is not for the user.
    """
    address = hub_address(text)
    with hub.quiet():
        try:
            found = _listed(address)
        except Exception as error:  # whatever the hub's client raises
            raise SourceError(hub.refusal(f"hf://datasets/{address.repository}{_at(address)}", error)) from error
    if not found.names:
        raise SourceError(f"{address}: there is no such file or folder in the repository; its files are {_some(found)}")
    return found


def local_path(text: str, suffixes: Sequence[str] = ()) -> str:
    """Return where on disk an address leads, after a download of what is missing; see `HubFiles.fetched`."""
    return hub_files(text).fetched(suffixes)


def address_of(path: str | Path) -> str | None:
    """Return the address of a file or folder in a snapshot of a data set; None for any other path."""
    found = hub.snapshot_of(os.path.abspath(path))  # noqa: PTH100 - links stay as they are
    if found is None or found.kind != "datasets":
        return None
    return str(HubAddress(found.repository, found.commit, found.below))


def shown(path: str | Path) -> str:
    """Return a path for people: the address of what was downloaded, at its commit."""
    return address_of(path) or str(path)


def data_set_name(path: str | Path) -> str | None:
    """Return NAME of the data set in whose snapshot a path lies, rather than that of a folder named by a commit."""
    found = hub.snapshot_of(os.path.abspath(path))  # noqa: PTH100
    return found.name if found is not None and found.kind == "datasets" else None


def _listed(address: HubAddress) -> HubFiles:
    """The files of a repository; for a commit whose files are noted in the cache, the hub is not asked."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.hf_api import RepoFile

    commit = address.revision if hub.COMMIT.fullmatch(address.revision or "") else None
    noted = _noted(address, commit) if commit else None
    online = not constants.HF_HUB_OFFLINE and (noted is not None or hub.answers())
    if online and noted is None:
        api = HfApi(endpoint=_endpoint())
        commit = commit or api.dataset_info(address.repository, revision=address.revision).sha
        noted = _noted(address, commit)
        if noted is None:
            tree = api.list_repo_tree(address.repository, recursive=True, revision=commit, repo_type="dataset")
            noted = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
    if online and noted is not None:
        return HubFiles(address, hub.snapshot_folder("datasets", address.repository, str(commit)), noted, online)
    folder = Path(
        snapshot_download(
            address.repository,
            repo_type="dataset",
            revision=address.revision,
            local_files_only=True,
            allow_patterns=[],
        )
    )
    noted = _noted(address, folder.name)
    if noted is None or not constants.HF_HUB_OFFLINE:
        _log.warning(
            "%s: the hub is not asked, and its cache has commit %s%s",
            address, folder.name[:12], "" if noted is not None else ", whole or in part",
        )  # fmt: skip
    return HubFiles(address, folder, _on_disk(folder) if noted is None else noted, online=False)


def _noted(address: HubAddress, commit: str | None) -> dict[str, int | None] | None:
    """The files of a commit as the hub's client has noted them in its cache; None where it has not."""
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:  # an older client, which notes nothing
        return None
    try:
        tree = get_cached_repo_tree(address.repository, repo_type="dataset", revision=commit)
    except CachedRepoTreeNotFoundError:
        return None
    return {entry.path: entry.size for entry in tree}


def _on_disk(folder: Path) -> dict[str, int | None]:
    paths = (Path(above, name) for above, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).as_posix(): None for path in paths if path.exists()}


def _filtered(names: Iterable[str], allowed: list[str] | None, ignored: list[str]) -> list[str]:
    """The names that the hub's client takes by such patterns."""
    wanted, unwanted = (
        None if patterns is None else re.compile("|".join(map(translate, patterns)) or r"(?!)").match
        for patterns in (allowed, ignored)
    )
    return [name for name in names if (wanted is None or wanted(name)) and not (unwanted and unwanted(name))]


def _bars_in_terminals() -> AbstractContextManager[object]:
    """Keep the progress bars of the hub's client out of what is no terminal."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    silent: Any = None if sys.stderr.isatty() else disable_progress_bars()
    return silent if hasattr(silent, "__exit__") else nullcontext()  # older clients leave them switched off


def _deeper(slashes: int) -> str:
    """A pattern of the hub's client for paths with more slashes."""
    return "*/" * (slashes + 1) + "*"


def _endpoint() -> Any:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _at(address: HubAddress) -> str:
    return f"@{address.revision}" if address.revision else ""


def _some(found: HubFiles) -> str:
    return listed(name for name in found.files if not name.startswith("."))
