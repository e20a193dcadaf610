"""The archives that a text names: one, a folder, or a pattern such as `shards-{000..011}.tar` or `shards-*.tar`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

from visionadapt.core.naming import natural_key
from visionadapt.errors import SourceError

SUFFIXES = (".tar", ".zip")
_COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|7z|rar)$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_MOST = 1_000_000


def is_archive(name: str) -> bool:
    """Whether a file is named like an archive that is read, or a pattern of such."""
    return name.lower().endswith(SUFFIXES)


def expanded(text: str) -> list[str]:
    """Return what the braces of a pattern stand for, as a shell does: `a-{00..02}` is `a-00`, `a-01` and `a-02`.

    >>> expanded("{train,val}-{08..10}.tar")[1:4]
    ['train-09.tar', 'train-10.tar', 'val-08.tar']

    Raises:
        SourceError: it stands for more than a million names.
    """
    found = [text]
    while any(_BRACES.search(name) for name in found):
        found = [each for name in found for each in _one_brace(name)]
        if len(found) > _MOST:
            raise SourceError(f"{text} stands for more than {_MOST:,} archives")
    return found


def _one_brace(name: str) -> Iterator[str]:
    match = _BRACES.search(name)
    if match is None:
        yield name
        return
    limits = _RANGE.fullmatch(match[1])
    if limits is None:
        words = match[1].split(",")
    else:
        first, last = int(limits[1]), int(limits[2])
        width = len(limits[1]) if limits[1].startswith("0") else 0
        if last - first >= _MOST:
            raise SourceError(f"{name} stands for more than {_MOST:,} archives")
        words = [f"{number:0{width}d}" for number in range(first, last + 1)]
    yield from (name[: match.start()] + word + name[match.end() :] for word in words)


def local_archives(text: str) -> list[str]:
    """Return the paths of the archives that a text names, in its order, or of a folder or pattern in natural order.

    Raises:
        SourceError: there is none, or one is of a kind that is not read.
    """
    paths: list[str] = []
    for name in [text] if os.path.lexists(text) else expanded(text):
        if os.path.isdir(name):  # noqa: PTH112 - a Path refuses some texts
            inside = [os.path.join(name, each) for each in os.listdir(name) if not each.startswith(".")]  # noqa: PTH118, PTH208
            paths += sorted((path for path in inside if is_archive(path) or _COMPRESSED.search(path)), key=natural_key)
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
    if _COMPRESSED.search(path):
        raise SourceError(f"{path} is compressed as a whole, so that no image in it can be found: make it a plain .tar")
    if not is_archive(path):
        raise SourceError(f"{path} is no .tar and no .zip file")
