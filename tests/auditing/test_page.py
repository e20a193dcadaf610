"""The audit page, read by a parser: names of files and classes never become anything but text."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from visionadapt.auditing import Audit, AuditFinding
from visionadapt.auditing.findings import KINDS
from visionadapt.auditing.page import LISTED, PICTURED, page

from .scenes import audited, scene

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE x; --",
    "{{ 7*7 }}{% for x in y %}",
    "a\u202egpj.exe",
    "line\nbreak\x1b[31m",
    "&lt;b&gt;",
    "</title></style></body>",
]


class Parsed(HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    root = tmp_path_factory.mktemp("plain")
    for label in ("one", "two"):
        (root / label).mkdir()
        for number in range(6):
            scene("red", number + 10 * len(label)).save(root / label / f"{number}.png")
    return audited(root)


def with_names(audit: Audit, names: list[str]) -> Audit:
    """Give an audit findings of every kind, with files, labels and details of some names."""
    findings = [
        AuditFinding(kind, name, name, name, name, 0.5, index, 1) for kind in KINDS for index, name in enumerate(names)
    ]
    classes = dict(zip(names, [{"train": 1}] * len(names), strict=True))
    resizing = audit.resizing
    assert resizing is not None
    effects = {policy: {"": by[""], **dict.fromkeys(names, by[""])} for policy, by in resizing.effects.items()}
    return replace(
        audit,
        findings=tuple(findings),
        split_origin=names[0],
        statistics=replace(audit.statistics, classes=classes),
        resizing=replace(resizing, effects=effects, reason=names[1]),
    )


def test_hostile_names_make_no_element(plain: Audit) -> None:
    harmless = Parsed(page(with_names(plain, [f"name{number}" for number in range(len(EVIL))])))
    hostile = Parsed(page(with_names(plain, EVIL)))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert [list(attributes) for _, attributes in hostile.elements] == [
        list(attributes) for _, attributes in harmless.elements
    ]
    assert "<script>alert(1)</script>" in hostile.text
    assert "{{ 7*7 }}" in hostile.text
    assert "\\u202e" in hostile.text
    assert not set(hostile.text) & set("\u202e\x1b")


def test_a_hostile_folder_end_to_end(tmp_path: Path) -> None:
    root = tmp_path / "<i>data"
    for label in ("<b>one", "two'\""):
        (root / label).mkdir(parents=True)
        for number in range(6):
            scene("red", number + 10 * len(label)).save(root / label / f'{number}"><script>.png')
    (root / "<b>one" / "<u>.png").write_bytes(b"")
    parsed = Parsed(page(audited(root)))
    assert not {tag for tag, _ in parsed.elements} & {"script", "b", "i", "u"}
    assert "<b>one/<u>.png" in parsed.text


def test_the_page_needs_nothing_else_and_runs_nothing(plain: Audit) -> None:
    parsed = Parsed(page(with_names(plain, EVIL)))
    assert not {tag for tag, _ in parsed.elements} & {"script", "link", "iframe", "object", "form", "base"}
    links = [value or "" for _, attributes in parsed.elements for name, value in attributes.items() if name == "href"]
    sources = [value or "" for _, attributes in parsed.elements for name, value in attributes.items() if name == "src"]
    assert links
    assert all(link.startswith("#") for link in links)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    policy = next(attributes["content"] for tag, attributes in parsed.elements if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert all(attributes.get("alt") for tag, attributes in parsed.elements if tag == "img")


def test_what_does_not_fit_is_counted(plain: Audit) -> None:
    near = [AuditFinding("near_duplicate", f"p{number}", "q", index=0, other_index=1) for number in range(PICTURED + 7)]
    lost = [AuditFinding("missing", f"m{number}") for number in range(LISTED + 1234)]
    text = Parsed(page(replace(plain, findings=(*near, *lost)))).text
    assert "and 7 more" in text
    assert "and 1,234 more" in text
    assert "p29" in text
    assert "p30" not in text


def test_an_audit_without_findings_says_so(plain: Audit) -> None:
    assert "No findings." in Parsed(page(replace(plain, findings=()))).text
