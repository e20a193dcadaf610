"""A report in a browser: silent, offline, accessible, and as wide as the screen, in both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route

from tests.conftest import tinted
from tests.reporting.conftest import trained


@pytest.fixture(scope="module")
def many_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 30 classes with long names."""
    folder = tmp_path_factory.mktemp("many")
    for label in range(30):
        name = f"class {label} of a name that is far too long for the margin of a confusion matrix".replace(
            " ", "_" * 3
        )
        (folder / "data" / name).mkdir(parents=True)
        for index in range(3):
            tinted((60, 40), label, 100 * label + index).save(folder / "data" / name / f"{index}.png")
    return trained(f"folder({folder / 'data'})", folder, epochs=1)


def opened(browser: Browser, run: Path, **settings: Any) -> tuple[Page, list[str]]:
    """Open the report; return the page, and all other requests, console messages, errors and dialogs."""
    told: list[str] = []
    page = browser.new_context(**settings).new_page()
    address = (run / "report.html").as_uri()

    def answer(route: Route) -> None:
        if route.request.url == address:
            route.continue_()
        else:
            told.append(route.request.url)
            route.abort()

    page.route("**/*", answer)
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    return page, told


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("which", ["hostile_run", "many_classes"])
def test_it_is_silent_accessible_and_fits(
    browser: Browser, request: pytest.FixtureRequest, which: str, theme: str, width: int
) -> None:
    run: Path = request.getfixturevalue(which)
    page, told = opened(browser, run, viewport={"width": width, "height": 900}, color_scheme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
    assert told == []
    page.context.close()


def test_it_has_a_dark_theme_and_is_white_on_paper(browser: Browser, hostile_run: Path) -> None:
    page, _ = opened(browser, hostile_run, color_scheme="dark")
    colour = "getComputedStyle(document.querySelector('section')).backgroundColor"
    dark = page.evaluate(colour)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark", media="print")
    assert (page.evaluate(colour), light, dark != light) == ("rgb(255, 255, 255)", "rgb(255, 255, 255)", True)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.context.close()


def test_it_reads_the_same_without_scripts(browser: Browser, hostile_run: Path) -> None:
    texts = []
    for enabled in (True, False):
        page, _ = opened(browser, hostile_run, java_script_enabled=enabled)
        texts.append(page.locator("body").inner_text())
        assert all(image.is_visible() for image in page.locator("section > ul img").all())
        page.context.close()
    assert texts[0] == texts[1] and len(texts[0]) > 1_000


BOXES = """() => {
    const shown = element => element.checkVisibility() && !element.closest("title, style");
    const nodes = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode;
        if (node.data.trim() && shown(node.parentElement)) nodes.push(node);
    }
    const boxes = nodes.flatMap(node => {
        const range = document.createRange();
        range.selectNodeContents(node);
        const cut = node.parentElement.closest(".matrix span") !== null;  // shortened on purpose
        return cut ? [] : [...range.getClientRects()].map(box => ({box, node, text: node.data.trim().slice(0, 40)}));
    });
    for (const image of document.images) {
        if (shown(image)) boxes.push({box: image.getBoundingClientRect(), node: image, text: image.alt});
    }
    const problems = [], width = document.documentElement.clientWidth;
    for (const {box, node, text} of boxes) {
        const scrolls = (node.parentElement ?? node).closest(".scroll");
        if (!scrolls && (box.left < -1 || box.right > width + 1)) problems.push(`beyond the page: ${text}`);
    }
    boxes.sort((a, b) => a.box.top - b.box.top);
    boxes.forEach((one, place) => {
        for (const other of boxes.slice(place + 1)) {
            if (other.box.top > one.box.bottom - 3) break;
            const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
            const down = Math.min(one.box.bottom, other.box.bottom) - other.box.top;
            if (across > 3 && down > 3 && one.node !== other.node) problems.push(`${one.text} over ${other.text}`);
        }
    });
    return problems;
}"""
"""Texts and images that overlap, or leave the page."""


@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (390, "screen"), (680, "print")])
@pytest.mark.parametrize("which", ["hostile_run", "many_classes"])
def test_no_box_overlaps_or_leaves_the_page(
    browser: Browser, request: pytest.FixtureRequest, which: str, width: int, media: Literal["print", "screen"]
) -> None:
    """On a desktop, on a phone, and on A4 between margins of 15 mm, with all that can be unfolded."""
    page, _ = opened(browser, request.getfixturevalue(which), viewport={"width": width, "height": 900})
    page.emulate_media(media=media)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.evaluate(BOXES) == []
    page.context.close()


def test_no_text_is_too_small_to_read(browser: Browser, many_classes: Path) -> None:
    """No text is smaller than 9 pixels on a phone, including text in charts."""
    page, _ = opened(browser, many_classes, viewport={"width": 390, "height": 900})
    sizes = page.evaluate(
        """[...document.querySelectorAll("svg text, td, th, p, li, dd, dt, span, a")].map(element => {
            const matrix = element.getScreenCTM ? element.getScreenCTM() : {a: 1, b: 0};
            return parseFloat(getComputedStyle(element).fontSize) * Math.hypot(matrix.a, matrix.b);
        })"""
    )
    assert len(sizes) > 100 and min(sizes) >= 9
    page.context.close()
