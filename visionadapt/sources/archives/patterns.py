"""The archives that a text names: one, a folder, or a pattern such as `shards-{000..011}.tar` or `shards-*.tar`."""

from __future__ import annotations

import glob
import os
import re

from visionadapt.core.naming import natural_key
from visionadapt.errors import SourceError
from visionadapt.sources.braces import expanded

SUFFIXES = (".tar", ".zip")
_COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|7z|rar)$", re.IGNORECASE)


def is_archive(name: str) -> bool:
    """Whether a file is named like an archive that is read, or a pattern of such."""
    return name.lower().endswith(SUFFIXES)


def is_compressed(name: str) -> bool:
    """Whether a file is named like an archive that is compressed as a whole, and so not read."""
    return _COMPRESSED.search(name) is not None


def compressed(name: str) -> str:
    """Tell what to do with an archive that is compressed as a whole."""
    return f"{name} is compressed as a whole, so that no image in it can be found: make it a plain .tar"


def local_archives(text: str) -> list[str]:
    """Return the paths of the archives that a text names, in its order, or of a folder or pattern in natural order.

    Raises:
        SourceError: there is none, or one is of a kind that is not read.
    """
    paths: list[str] = []
    for name in [text] if os.path.lexists(text) else expanded(text):
        if os.path.isdir(name):  # noqa: PTH112 - a Path refuses some texts
            inside = [os.path.join(name, each) for each in os.listdir(name) if not each.startswith(".")]  # noqa: PTH118, PTH208
            paths += sorted((path for path in inside if is_archive(path) or is_compressed(path)), key=natural_key)
        elif glob.has_magic(name) and not os.path.lexists(name):
            paths += sorted(glob.glob(name), key=natural_key)  # noqa: PTH207
        else:
            paths.append(name)
    if not paths:
        raise SourceError(f"{text}: there is no .tar and no .zip file; name some, such as shards-{{000..011}}.tar")
    for path in paths:
        check_kind(path)
        if not os.path.isfile(path):  # noqa: PTH113 - as above
            raise SourceError(f"no such archive: {path}")
    return paths


def check_kind(path: str) -> None:
    """Raise SourceError where an archive is of a kind that is not read."""
    if is_compressed(path):
        raise SourceError(compressed(path))
    if not is_archive(path):
        raise SourceError(f"{path} is no .tar and no .zip file")
