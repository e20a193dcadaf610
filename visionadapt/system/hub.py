"""The Hugging Face hub: whether it answers, what its refusals mean, and which files belong to its cache."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SCHEME = "hf://"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""ORG/NAME, as it stands behind the scheme."""
COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_SECONDS = 5.0

_SNAPSHOT = re.compile(
    r"(?P<folder>.*/(?P<kind>models|datasets|spaces)--(?P<names>[^/]+))/snapshots/(?P<commit>[0-9a-f]{40})"
    r"(?:/(?P<below>.*))?",
    re.DOTALL,
)
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, in the hub's cache.

    Attributes:
        folder: of the repository, which holds its `snapshots` and its `blobs`.
        kind: `models`, `datasets` or `spaces`.
        repository: ORG/NAME.
        commit: 40 hex digits.
        below: path in the repository; empty for the whole.
    """

    folder: str
    kind: str
    repository: str
    commit: str
    below: str

    @property
    def name(self) -> str:
        """NAME of the repository, without ORG."""
        return self.repository.rpartition("/")[2]


@lru_cache(maxsize=256)
def snapshot_of(path: str) -> Snapshot | None:
    """Return the snapshot that an absolute path lies in, by its text; None for any other path."""
    match = _SNAPSHOT.fullmatch(path.replace("\\", "/"))
    if match is None:
        return None
    repository = match["names"].replace("--", "/")
    return Snapshot(match["folder"], match["kind"], repository, match["commit"], match["below"] or "")


def is_blob(root: str, target: str) -> bool:
    """Whether a file holds the content of one below `root`, which lies in a snapshot of the hub's cache.

    The names in a snapshot are symbolic links to the `blobs` of the same repository, each named by its hash; nothing
    else there counts. Both paths have all links resolved, so that no link in `blobs` leads on.
    """
    snapshot = snapshot_of(root)
    folder, _, name = target.replace("\\", "/").rpartition("/")
    return snapshot is not None and folder == f"{snapshot.folder}/blobs" and _BLOB.fullmatch(name) is not None


def answers() -> bool:
    """Whether the hub answers within seconds."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Show only errors of the hub's client, and of the libraries with these names, while the block runs."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", *names)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def refusal(address: str, error: Exception) -> str:
    """Return what an error of the hub's client means for an address, and what to do, in one line."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return f"{address} needs the consent of its owners: ask for it on its page, and log in with `hf auth login`"
    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        return f"{address} is not there, or not for you; log in with `hf auth login`"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{address} is not in the cache {constants.HF_HUB_CACHE}, {unreached()}"
    if getattr(getattr(error, "response", None), "status_code", None) in {401, 403}:
        return f"{address} is refused by the hub; log in again with `hf auth login`"
    reason = (str(error).splitlines() or [""])[0]
    return f"{address} cannot be downloaded ({type(error).__name__}: {reason})"


def unreached() -> str:
    """Return why the hub is not asked, and what to do."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "and HF_HUB_OFFLINE is set; unset it"
    return f"and {constants.ENDPOINT} does not answer; connect to the network, and repeat the command"


def snapshot_folder(kind: str, repository: str, commit: str) -> Path:
    """Return where the hub's cache has a repository at a commit, if it has it."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    return cache / f"{kind}--{repository.replace('/', '--')}" / "snapshots" / commit
