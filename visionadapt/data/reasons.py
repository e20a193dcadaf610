"""Summarise why rows cannot be used: the commonest reasons, with counts and an example of each."""

from __future__ import annotations

import re
from collections.abc import Iterable

from visionadapt.core.records import Record, Source

_NAMED = 3
_PLACE = re.compile(r" \([A-Za-z_]\w* [0-9]+(?:, [A-Za-z_]\w* [0-9]+)*\)$")
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9][0-9,.]*")


def commonest(rows: Iterable[tuple[Record, str]], source: Source | None = None) -> str:
    """Return the commonest of some problems in one line; `…` stands for what differs between rows.

    >>> commonest([(Record("a.jpg"), "no such file (line 2)"), (Record("b.jpg"), "no such file (line 3)")])
    '2 × no such file (such as a.jpg, line 2)'

    Args:
        rows: each with its problem.
        source: of the rows. What its method `advice(record)` returns, if it has one, follows the first reason.
    """
    counts: dict[str, int] = {}
    first: dict[str, tuple[Record, str]] = {}
    for record, problem in rows:
        kind = _VARYING.sub("…", _PLACE.sub("", problem))
        counts[kind] = counts.get(kind, 0) + 1
        first.setdefault(kind, (record, problem))
    kinds = sorted(counts, key=lambda kind: -counts[kind])
    parts = [f"{counts[kind]:,} × {_told(*first[kind], counts[kind])}" for kind in kinds[:_NAMED]]
    rest = sum(counts[kind] for kind in kinds[_NAMED:])
    advice = getattr(source, "advice", None)
    hint = advice(first[kinds[0]][0]) if kinds and advice is not None else None
    return ", ".join([*parts, *([f"{rest:,} × other reasons"] if rest else [])]) + (f"; {hint}" if hint else "")


def _told(record: Record, problem: str, count: int) -> str:
    place = _PLACE.search(problem)
    name = "" if place is None else place[0].strip(" ()")
    where = f", {name}" if name and name not in record.key else ""
    such = "such as " if count > 1 else ""
    return f"{_PLACE.sub('', problem)} ({such}{record.key}{where})"
