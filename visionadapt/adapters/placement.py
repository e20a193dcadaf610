"""Which sites of a model an adapter goes to: by block, by stage, by name and by type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The fields that every adapter's settings share.

    Attributes:
        blocks: which blocks: `all`, `first:3`, `last:6`, `last:66%` (of their number, rounded to the nearest,
            at least one) or indices such as `0,3,5`.
        stages: which stages, in the same words.
        where: pattern on the site's dotted name (`*.attn.qkv`); `,` separates several, and one behind `!` takes out
            what it fits.
        types: names of module classes (`Linear`, `Linear,Conv2d`), which stand for their subclasses too. Where neither
            `types` nor a pattern that takes in is given, it is the method's own places.
        learning_rate: what a method is trained with where nothing else is said; no field, but a constant a method.
    """

    learning_rate: ClassVar[float] = 5e-3

    blocks: str = "all"
    stages: str = "all"
    where: str = ""
    types: str = ""


def select(
    sites: Sequence[Site], blocks: str = "all", stages: str = "all", where: str = "", types: str = ""
) -> list[Site]:
    """The sites in the blocks and stages asked for whose name fits the pattern and whose module is of a type asked for.

    They come in the model's order.

    `blocks` and `stages` other than `all` leave out what lies outside of every block (stem, final norm).

    Raises:
        AdapterError: nothing is left, an index does not exist, or a text is not a selection; the message names what
            exists.
    """
    chosen_blocks = _indices("block", blocks, {site.block for site in sites})
    chosen_stages = _indices("stage", stages, {site.stage for site in sites})
    inside = [
        site
        for site in sites
        if (chosen_blocks is None or site.block in chosen_blocks)
        and (chosen_stages is None or site.stage in chosen_stages)
    ]
    chosen = [site for site in inside if matches(site.name, where)]
    if not chosen:
        raise AdapterError(_nothing_left(sites, inside, blocks, stages, where))
    return _of_types(chosen, types)


def _of_types(sites: list[Site], types: str) -> list[Site]:
    """The sites whose module is of one of the classes named, or of a subclass; all where none is named."""
    wanted = set(_words(types))
    if not wanted:
        return sites
    chosen = [site for site in sites if wanted & {kind.__name__ for kind in type(site.module).__mro__}]
    if not chosen:
        there = ", ".join(dict.fromkeys(type(site.module).__name__ for site in sites))
        raise AdapterError(f"no site chosen is of types={types}; there are {there}")
    return chosen


def matches(name: str, where: str) -> bool:
    """Whether a dotted name fits one of the patterns that take in, if there is any, and none that takes out."""
    taking_in, taking_out = _patterns(where)
    fits = not taking_in or any(fnmatchcase(name, pattern) for pattern in taking_in)
    return fits and not any(fnmatchcase(name, pattern) for pattern in taking_out)


def names_sites(where: str, types: str = "") -> bool:
    """Whether the texts name the sites that are meant, rather than leave the choice to the method."""
    return bool(_patterns(where)[0] or _words(types))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _patterns(where: str) -> tuple[list[str], list[str]]:
    patterns = _words(where)
    return [p for p in patterns if not p.startswith("!")], [p[1:].strip() for p in patterns if p.startswith("!")]


def _nothing_left(sites: Sequence[Site], inside: Sequence[Site], blocks: str, stages: str, where: str) -> str:
    if not sites:
        return "the model has no place where an adapter can be attached"
    if not inside:
        return f"no site lies in both blocks={blocks} and stages={stages}; choose others"
    names = [site.name for site in inside]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"no site is named like where={where!r}; there are {shown}"


def _indices(what: str, text: str, found: set[int | None]) -> frozenset[int] | None:
    """The indices that a selection means; None for `all`."""
    text = text.strip()
    if text == "all":
        return None
    existing = sorted(index for index in found if index is not None)
    if not existing:
        raise AdapterError(f"{what}s={text} was asked for, but the model has no {what}s; use {what}s=all")
    side, separator, amount = text.partition(":")
    if separator and side in ("first", "last"):
        count = _count(what, text, amount, len(existing))
        return frozenset(existing[:count] if side == "first" else existing[-count:])
    return _listed(what, text, existing)


def _count(what: str, text: str, amount: str, total: int) -> int:
    if amount.endswith("%") and amount[:-1].isdecimal() and 0 < int(amount[:-1]) <= 100:
        return max(1, round(total * int(amount[:-1]) / 100))
    if amount.isdecimal() and 1 <= int(amount) <= total:
        return int(amount)
    if amount.isdecimal():
        raise AdapterError(
            f"{what}s={text} is out of range: the model has {total} {what}s, so 1 to {total} can be taken"
        )
    raise AdapterError(f"{what}s={text} is not a selection; write all, first:3, last:6, last:66% or 0,3,5")


def _listed(what: str, text: str, existing: list[int]) -> frozenset[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise AdapterError(f"{what}s={text} is not a selection; write all, first:3, last:6, last:66% or 0,3,5")
    wanted = frozenset(int(part) for part in parts)
    missing = sorted(wanted.difference(existing))
    if missing:
        raise AdapterError(
            f"{what}s={text} names {what} {missing[0]}, which does not exist; there are {existing[0]} to {existing[-1]}"
        )
    return wanted
