"""Select the sites that an adapter is attached to: by block, stage, name and module type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import nn

from visionadapt.adapters.pointwise import activation
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError
from visionadapt.system.text import first_of


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Base class of every method's settings: the fields that choose where its layers go.

    Without `types` and without a pattern in `where` that includes sites, the method chooses its own places in the
    selected blocks and stages.

    Attributes:
        blocks: `all`, `first:3`, `last:6`, `last:66%` (rounded to the nearest number of blocks, at least one) or
            indices such as `0,3,5`.
        stages: the same for stages.
        where: shell-style patterns on a site's dotted name, separated by commas, such as `*.attn.qkv`; a pattern after
            `!` excludes sites.
        types: names of module classes, such as `Linear` or `Linear,Conv2d`; subclasses match too.
        learning_rate: the method's default learning rate; a class constant, not a field.

    Raises:
        AdapterError: a field of the method is out of its range. Fields that several methods have are checked here.
    """

    learning_rate: ClassVar[float] = 5e-3

    blocks: str = "all"
    stages: str = "all"
    where: str = ""
    types: str = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, getattr(self, item.name))

    def refuse(self, site: Site) -> str:
        """Explain why the site cannot take this adapter; empty if it can. By default, any called module can."""
        return "" if site.called else "its parent reads its weight and never calls it"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Choose among the sites when neither a pattern nor a type names them. By default, every block."""
        return [site for site in sites if site.kind == "block"]

    def build(self, site: Site) -> nn.Module:
        """Make the layer for one site, with new weights."""
        raise NotImplementedError


def require(condition: bool, message: str) -> None:
    """Raise AdapterError with the message unless the condition holds."""
    if not condition:
        raise AdapterError(message)


def _check(name: str, value: Any) -> None:
    """Check a field that has the same meaning in all methods with a field of that name."""
    if name in ("rank", "reduction", "tokens", "groups"):
        require(value >= 1, f"{name}={value} is too small; use 1 or more")
    elif name in ("dropout", "drop_path"):
        require(0 <= value < 1, f"{name}={value} must be at least 0 and below 1")
    elif name == "rows":
        require(bool(value) and set(value) <= set("qkv"), f"rows={value!r} must be made of q, k and v")
    elif name == "activation":
        activation(value)


def select(
    sites: Sequence[Site], blocks: str = "all", stages: str = "all", where: str = "", types: str = ""
) -> list[Site]:
    """Select sites by block, stage, name and module type, in the given order.

    The arguments are the fields of `Placement`. `blocks` and `stages` other than `all` exclude sites outside of every
    block (stem, final norm).

    Raises:
        AdapterError: no site is left, an index does not exist, or a string is not a selection; the message names what
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
    """Return the sites whose module is an instance of one of the named classes; all where none is named."""
    named = set(_words(types))
    if not named:
        return sites
    chosen = [site for site in sites if named & {kind.__name__ for kind in type(site.module).__mro__}]
    if not chosen:
        there = ", ".join(dict.fromkeys(type(site.module).__name__ for site in sites))
        raise AdapterError(f"none of the selected sites has types={types}; there are {there}")
    return chosen


def matches(name: str, where: str) -> bool:
    """Return whether a dotted name matches an including pattern, or there is none, and matches no excluding pattern."""
    including, excluding = _patterns(where)
    included = not including or any(fnmatchcase(name, pattern) for pattern in including)
    return included and not any(fnmatchcase(name, pattern) for pattern in excluding)


def names_sites(where: str, types: str = "") -> bool:
    """Return whether the fields name the sites, rather than leave the choice to the method."""
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
        return f"no site is in both blocks={blocks} and stages={stages}; choose others"
    return f"no site matches where={where!r}; there are {first_of([site.name for site in inside], 6)}"


def _indices(what: str, text: str, found: set[int | None]) -> frozenset[int] | None:
    """Return the selected indices; None for `all`."""
    text = text.strip()
    if text == "all":
        return None
    existing = sorted(index for index in found if index is not None)
    if not existing:
        raise AdapterError(f"{what}s={text} was requested, but the model has no {what}s; use {what}s=all")
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
        raise AdapterError(f"{what}s={text} is out of range: the model has {total} {what}s; take 1 to {total}")
    raise _no_selection(what, text)


def _listed(what: str, text: str, existing: list[int]) -> frozenset[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise _no_selection(what, text)
    listed = frozenset(int(part) for part in parts)
    missing = sorted(listed.difference(existing))
    if missing:
        raise AdapterError(
            f"{what}s={text} names {what} {missing[0]}, which does not exist; there are {existing[0]} to {existing[-1]}"
        )
    return listed


def _no_selection(what: str, text: str) -> AdapterError:
    return AdapterError(f"{what}s={text} is not a selection; write all, first:3, last:6, last:66% or 0,3,5")
