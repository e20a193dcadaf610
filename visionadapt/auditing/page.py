"""`audit.html`: every finding of an audit on one offline page, the most serious first, with thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from visionadapt.auditing.auditor import Audit
from visionadapt.auditing.findings import KINDS, AuditFinding, FindingKind
from visionadapt.html.pages import render
from visionadapt.images.thumbnails import Thumbnails

PICTURED = 30
"""Number of findings of a kind that are shown with thumbnails."""

LISTED = 100
"""Number of findings of a kind that are shown without thumbnails."""

_CLASSES = 200


@dataclass(frozen=True)
class CardImage:
    """An image on a card: its thumbnail as a data URI ("" for none), its name, and its label, split and group."""

    thumbnail: str
    name: str
    about: str


@dataclass(frozen=True)
class FindingCard:
    """A finding as it is shown."""

    images: tuple[CardImage, ...]
    detail: str
    score: float | None


@dataclass(frozen=True)
class FindingSection:
    """The findings of a kind that are shown, and the number of all of them."""

    name: str
    kind: FindingKind
    cards: tuple[FindingCard, ...]
    count: int

    @property
    def more(self) -> int:
        """Number of findings that are not shown."""
        return self.count - len(self.cards)


def page(audit: Audit) -> str:
    """Render the page. Names and labels are escaped, as are characters that do not print."""
    classes = audit.statistics.classes
    return render(
        "visionadapt.auditing",
        "audit.html",
        audit=audit,
        source=str(audit.manifest.source),
        sections=list(_sections(audit)),
        classes=list(classes.items())[:_CLASSES],
        more_classes=max(len(classes) - _CLASSES, 0),
        largest=max((sum(counts.values()) for counts in classes.values()), default=0) or 1,
        effects=list(_effects(audit)),
    )


def _sections(audit: Audit) -> Iterator[FindingSection]:
    thumbnails = Thumbnails(audit.manifest)
    for name, kind in KINDS.items():
        found = [finding for finding in audit.findings if finding.kind == name]
        if found:
            shown = found[: PICTURED if kind.thumbnails else LISTED]
            yield FindingSection(name, kind, tuple(_card(audit, item, thumbnails) for item in shown), len(found))


def _card(audit: Audit, finding: AuditFinding, thumbnails: Thumbnails) -> FindingCard:
    images = [CardImage(thumbnails.of(finding.index), finding.file, _about(audit, finding.index, finding.label))]
    if finding.other_index >= 0:
        about = _about(audit, finding.other_index)
        images.append(CardImage(thumbnails.of(finding.other_index), finding.other, about))
    return FindingCard(tuple(images), finding.detail, finding.score)


def _about(audit: Audit, index: int, label: str = "") -> str:
    """Label, split and group of a row."""
    if index < 0:
        return label
    record = audit.manifest[index]
    group = f"group {record.group}" if record.group is not None else ""
    return " · ".join(text for text in ("; ".join(record.labels), record.split or "", group) if text)


def _effects(audit: Audit) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the effect of each resize policy on all images, and on those of each class."""
    if audit.resizing is not None:
        for name in ("", *list(audit.statistics.classes)[:_CLASSES]):
            yield name, {policy: by_class[name] for policy, by_class in audit.resizing.effects.items()}
