"""`audit.html`: one offline page with everything that an audit has found, the gravest first, with thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from visionadapt.auditing.audit import Audit
from visionadapt.auditing.findings import KINDS, AuditFinding, Kind
from visionadapt.images.thumbnails import Thumbnails
from visionadapt.system.text import terminal_safe

PICTURED = 30
"""Findings of a kind that are shown with thumbnails."""

LISTED = 100
"""Findings of a kind without pictures that are shown."""

_CLASSES = 200
_WITHOUT_PICTURES = frozenset({"missing", "empty", "unreadable", "refused", "unlisted", "few_pictures", "imbalance"})


@dataclass(frozen=True)
class Picture:
    """One picture of a card: its thumbnail as a data URI (or nothing), its name, and what is known of it."""

    thumbnail: str
    name: str
    about: str


@dataclass(frozen=True)
class Card:
    """One finding as it is shown."""

    pictures: tuple[Picture, ...]
    detail: str
    score: float | None


@dataclass(frozen=True)
class Section:
    """All findings of a kind, as many as are shown, and how many are not."""

    kind: Kind
    name: str
    pictured: bool
    cards: tuple[Card, ...]
    count: int

    @property
    def more(self) -> int:
        """How many findings are not shown."""
        return self.count - len(self.cards)


def page(audit: Audit) -> str:
    """The page as HTML. Names and labels are escaped, and characters that do not print are written as escapes."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = partial(terminal_safe, one_line=True)
    template = environment.from_string(files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        audit=audit,
        source=str(audit.manifest.source),
        sections=list(_sections(audit)),
        classes=list(audit.makeup.classes.items())[:_CLASSES],
        more_classes=max(len(audit.makeup.classes) - _CLASSES, 0),
        largest=max((sum(counts.values()) for counts in audit.makeup.classes.values()), default=0) or 1,
        policies=_policies(audit),
    )


def _sections(audit: Audit) -> Iterator[Section]:
    thumbnails = Thumbnails(audit.manifest)
    for name, kind in KINDS.items():
        found = [finding for finding in audit.findings if finding.kind == name]
        if found:
            pictured = name not in _WITHOUT_PICTURES
            cards = tuple(_card(audit, item, thumbnails) for item in found[: PICTURED if pictured else LISTED])
            yield Section(kind, name, pictured, cards, len(found))


def _card(audit: Audit, finding: AuditFinding, thumbnails: Thumbnails) -> Card:
    pictures = [Picture(thumbnails.of(finding.index), finding.file, _about(audit, finding.index, finding.label))]
    if finding.other_index >= 0:
        about = _about(audit, finding.other_index, "")
        pictures.append(Picture(thumbnails.of(finding.other_index), finding.other, about))
    return Card(tuple(pictures), finding.detail, finding.score)


def _about(audit: Audit, index: int, label: str) -> str:
    """What is known of a row: label, part and group."""
    if index < 0:
        return label
    record = audit.manifest[index]
    group = f"group {record.group}" if record.group is not None else ""
    return " · ".join(text for text in ("; ".join(record.labels), record.split or "", group) if text)


def _policies(audit: Audit) -> Sequence[Mapping[str, Any]]:
    """A line of figures for all pictures and for each class."""
    if audit.policies is None:
        return []
    names = ["", *list(audit.makeup.classes)[:_CLASSES]]
    effects = audit.policies.effects
    return [{"name": name, **{policy: by_class[name] for policy, by_class in effects.items()}} for name in names]
