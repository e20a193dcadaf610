"""Labels in the cells of a table: several in one cell, 0 and 1 in columns of their own, and what is no label."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

_ITEM = r"""(?:\s*"[^"]*"\s*|\s*'[^']*'\s*|[^,'"\[\]]+)"""
_LIST = re.compile(rf"\[{_ITEM}(?:,{_ITEM})*\]")
_ITEMS = re.compile(r""""([^"]*)"|'([^']*)'|([^,'"\[\]]+)""")
_OBJECT = re.compile(r"""\{\s*(["'].*:.*)?\}$""", re.DOTALL)
_NAMES_WITH_BARS = re.compile(r"\s*[\w][^|\"'<>=]*(\|\s*[\w][^|\"'<>=]*)+")
_MISSING = {"nan", "null", "n/a", "na", "#n/a", "<na>"}
NO_MARK = "neither 0 nor 1"
_LONGEST = 10_000
_LISTS = 3
"""So many names must be parts of others for those to be taken for lists."""
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


def labels_in(cell: str, separator: str | None) -> list[str]:
    """Return the labels in a cell: with a separator its parts, or those of a list such as `["cat", "dog"]`."""
    if separator is None:
        return [cell]
    listed = _listed(cell)
    return cell.split(separator) if listed is None else listed


def marked(cell: str) -> bool | None:
    """Return whether a cell of a class's own column is 1 (or true, yes) and not 0 (false, no); None for others."""
    try:
        return {0.0: False, 1.0: True}.get(float(cell))
    except ValueError:
        return _WORDS.get(cell.casefold())


def composed_label(places: Mapping[str, str], meant: Collection[str]) -> str | None:
    """Return what to do about a label that is surely a list of several, or no name at all; None where all are names.

    Args:
        places: the place of the first row with each label.
        meant: labels that the user has named.
    """
    for name in places:
        if name not in meant and _OBJECT.match(name):
            return (
                f"{places[name]} has an object in place of a label ({name:.60}); write its name to a column of its own"
            )
        if name not in meant and re.search("[,'\"]", name) and _listed(name) is not None:
            return _several(name, places[name], ",")
    parts = _parts(places)
    for name, place in places.items():
        if name not in meant and _NAMES_WITH_BARS.fullmatch(name):
            return _several(name, place, "|")
        for separator in ",;":
            own = [part.strip() for part in name.split(separator)]
            if name not in meant and len(own) > 1 and all(part and parts[part] > 1 for part in own):
                return _several(name, place, separator)
    return None


def missing_value(names: Iterable[str], meant: Collection[str]) -> str | None:
    """Return what to say of a label such as `nan`, which stands for no label in many programs; None without one."""
    name = next((name for name in names if name.casefold() in _MISSING and name not in meant), None)
    return None if name is None else f"the label {name!r} is a class; drop=[{name}] leaves its rows out"


def shared_part(names: Collection[str], meant: Collection[str]) -> str | None:
    """Return what to say of names such as `cat, pet` and `dog, pet`, which may be lists; None where there are none."""
    parts = _parts(names)
    for name in names:
        for separator in ",;":
            own = [part.strip() for part in name.split(separator)]
            if name not in meant and len(own) > 1 and any(part and parts[part] > 1 for part in own):
                return _perhaps_several(name, separator)
    longer = _longer_by_words([name for name in names if name not in meant])
    return None if longer is None else _perhaps_several(longer, " ")


def _longer_by_words(names: Collection[str]) -> str | None:
    """Return one of the names that have all words of another and further ones, all of them common; None where few do.

    Lists do, such as `clear primary water` beside `clear primary`.
    """
    words = {name: frozenset(name.split(" ")) for name in names}
    common = Counter(word for own in words.values() for word in own)
    shared = {name: own for name, own in words.items() if len(own) > 1 and all(common[word] > 1 for word in own)}
    several = sum(len(own) > 1 for own in words.values())
    if 2 * len(shared) <= several:
        return None
    having: dict[str, list[str]] = {}
    for name, own in shared.items():
        for word in own:
            having.setdefault(word, []).append(name)
    longer = []
    for own in words.values():
        rarest = min(own, key=lambda word: len(having.get(word, ())))
        longer += [name for name in having.get(rarest, ()) if own < words[name]][:1]
        if len(longer) == _LISTS:
            return longer[0]
    return None


def _perhaps_several(name: str, separator: str) -> str:
    told = f"labels such as {name!r:.80} are one class each"
    return f"{told}; if they are lists, give separator={separator!r} for several labels per image"


def _parts(names: Iterable[str]) -> Counter[str]:
    """In how many names each name, and each part of one, is."""
    return Counter(part for name in names for part in _every_part(name))


def _several(name: str, place: str, separator: str) -> str:
    return (
        f"{place} has the label {name!r:.80}, which seems to be several: give separator={separator!r} for several "
        f"labels per image, or labels={{{name!r:.80}: …}} to name it as one"
    )


def _every_part(name: str) -> set[str]:
    """A label, and its parts by each separator."""
    return {name, *(part.strip() for separator in ",;" for part in name.split(separator))}


def _listed(cell: str) -> list[str] | None:
    """The strings in a list as JSON or Python writes it; None for other cells."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")) or len(text) > _LONGEST:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = [next(filter(None, item), "") for item in _ITEMS.findall(text[1:-1])] if _LIST.fullmatch(text) else None
    flat = isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value)
    return [str(item) for item in value if item is not None] if flat else None
