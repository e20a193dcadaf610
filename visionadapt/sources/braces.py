"""Braces in the names of files: `shards-{000..011}.tar` and `{train,val}.tar`, as shells and WebDataset have them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from visionadapt.errors import SourceError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_MOST = 1_000_000


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
            raise SourceError(f"{text} stands for more than {_MOST:,} files")
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
            raise SourceError(f"{name} stands for more than {_MOST:,} files")
        words = [f"{number:0{width}d}" for number in range(first, last + 1)]
    yield from (name[: match.start()] + word + name[match.end() :] for word in words)
