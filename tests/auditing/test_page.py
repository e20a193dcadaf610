"""The audit page, read by a parser: names of files and classes never become anything but text."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.page_boxes import inaccessible, problems
from visionadapt.auditing import Audit, AuditFinding
from visionadapt.auditing.findings import KINDS
from visionadapt.auditing.page import LISTED, PICTURED, page, verdict

from .scenes import audited, scene

pytestmark = pytest.mark.slow

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


def made(page: Parsed) -> list[tuple[str, list[str]]]:
    """Return the elements and the names of their attributes, without the places where a name may be broken."""
    return [(tag, list(attributes)) for tag, attributes in page.elements if tag != "wbr"]


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
    assert made(hostile) == made(harmless)
    assert all(not attributes for tag, attributes in hostile.elements if tag == "wbr")
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
    assert not {tag for tag, _ in parsed.elements} & {"script", "iframe", "object", "form", "base"}
    links = [attributes["href"] or "" for tag, attributes in parsed.elements if tag == "a"]
    assert [attributes["href"] for tag, attributes in parsed.elements if tag == "link"] == ["data:,"]
    sources = [value or "" for _, attributes in parsed.elements for name, value in attributes.items() if name == "src"]
    assert links
    assert all(link.startswith("#") for link in links)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    policy = next(attributes["content"] for tag, attributes in parsed.elements if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert all(attributes.get("alt") for tag, attributes in parsed.elements if tag == "img")


def test_it_looks_like_the_report(browser: Browser, plain: Audit, tmp_path: Path) -> None:
    """Names of every kind on a desktop, a phone and paper, light and dark: nothing overlaps, and no word is broken."""
    names = [*EVIL, "a/" + "very_long_name-" * 8 + ".jpg", "טיול/תמונה.jpg", "Polyommatus icarus/IMG_0042.jpg"]
    path = tmp_path / "audit.html"
    path.write_text(page(with_names(plain, names)), encoding="utf-8")
    shown = browser.new_page()
    told: list[str] = []
    shown.on("console", lambda message: told.append(message.text))
    shown.goto(path.as_uri())
    for width, media in ((1280, "screen"), (390, "screen"), (680, "print")):
        shown.set_viewport_size({"width": width, "height": 900})
        shown.emulate_media(media=media)  # type: ignore[arg-type]
        assert problems(shown) == [], (width, media)
        assert shown.evaluate("document.documentElement.scrollWidth") == width
    shown.emulate_media(media="screen", color_scheme="dark")
    for scheme in ("dark", "light"):
        shown.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert inaccessible(shown, structure=scheme == "light") == []
    assert told == []
    assert "`" not in shown.locator("body").inner_text()


def test_what_does_not_fit_is_counted(plain: Audit) -> None:
    near = [AuditFinding("near_duplicate", f"p{number}", "q", index=0, other_index=1) for number in range(PICTURED + 7)]
    lost = [AuditFinding("missing", f"m{number}") for number in range(LISTED + 1234)]
    text = Parsed(page(replace(plain, findings=(*near, *lost)))).text
    assert "and 7 more" in text
    assert "and 1,234 more" in text
    assert "p29" in text
    assert "p30" not in text


def test_the_first_words_follow_the_gravest_finding(plain: Audit) -> None:
    leak, lost = AuditFinding("leak", "a", "b", index=0, other_index=1), AuditFinding("missing", "c")
    grave, mild, clean = (verdict(replace(plain, findings=found)) for found in ((leak, lost, leak), (lost,), ()))
    assert "2 findings" in grave.judgement[0] and "1 finding should" in mild.judgement[0]
    assert clean.judgement[0] in Parsed(page(replace(plain, findings=()))).text
    assert all("findings.csv" in told.steps[0] for told in (grave, mild)) and len(clean.steps) == 1
