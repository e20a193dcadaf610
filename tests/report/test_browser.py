"""A report in a browser: silent, offline, accessible, and as wide as the screen, in both themes."""

from __future__ import annotations

import io
import itertools
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, Route
from pypdf import PdfReader

from tests.page_boxes import inaccessible, problems
from tests.report.synthetic import LONG, RIGHT_TO_LEFT, make_run, names
from visionadapt.commands.candidates import CANDIDATES
from visionadapt.report.comparison import comparison_page

pytestmark = pytest.mark.slow

DRAWN: dict[str, dict[str, Any]] = {
    "2 classes": {"classes": names(2), "each": 40},
    "10 classes": {"classes": names(10), "each": 12},
    "60 classes": {"classes": names(60), "each": 8},
    "1000 classes": {"classes": names(1000), "each": 5},
    "right to left": {"classes": RIGHT_TO_LEFT, "each": 20},
    "long": {"classes": LONG, "each": 10},
    "multi-label": {"classes": names(10), "each": 12, "several": True},
    "500 rejected": {"classes": names(10), "each": 60, "rejected": 500},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs of `DRAWN` by name, each made once."""
    folder = tmp_path_factory.mktemp("drawn")
    return cache(lambda name: make_run(folder / name, **DRAWN[name]))


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


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a comparison of all candidates, in a folder of its own."""
    tried: list[dict[str, Any]] = []
    for number, candidate in enumerate(each for each in CANDIDATES if not each.draw):
        score = 0.8 + 0.02 * number
        tried.append(
            {
                "name": candidate.name,
                "adapter": candidate.adapter,
                "score": score,
                "seconds": 3.0 * 4**number,
                "interval": [score - 0.06, score + 0.05],
                "peak_bytes": 2_100_000_000,
                "model_bytes": 370_000,
                **({"against_solved_head": {"difference": 0.02, "low": -0.01, "high": 0.05}} if number else {}),
            }
        )
    facts = {
        "candidates": tried,
        "recommended": tried[-1]["name"],
        "learning_curve": [{"images": 75 * 2**k, "score": 0.6 + 0.06 * k, "draws": 5} for k in range(4)],
        "forecast": {"images": 1200, "score": 0.92, "solved_head": 0.83},
        "advice": ["Best: one of them, 90.0 % on the validation images, in 3072 s.", "Adapter layers clearly help."],
    }
    folder = tmp_path_factory.mktemp("compared")
    (folder / "report.html").write_text(comparison_page("a comparison", facts), encoding="utf-8")
    return folder


@pytest.mark.parametrize("which", ["hostile", "compared", *DRAWN])
def test_it_is_silent_accessible_and_fits(
    browser: Browser, hostile_run: Path, compared: Path, drawn: Callable[[str], Path], which: str
) -> None:
    """On a desktop, on a phone, and on A4 between margins of 15 mm, with all that can be unfolded, in both themes."""
    made = {"hostile": hostile_run, "compared": compared}
    page, told = opened(browser, made[which] if which in made else drawn(which))
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for width, theme in itertools.product((1280, 390), themes):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        assert problems(page) == [], (width, theme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        if (width, theme) == (390, "dark"):
            continue  # the structure is that of the light page, the colours are those of the wide one
        assert inaccessible(page, structure=theme == "light") == []
    page.set_viewport_size({"width": 680, "height": 900})
    page.emulate_media(media="print")
    assert problems(page) == []
    assert told == []
    page.context.close()


@pytest.mark.parametrize("which", ["2 classes", "10 classes", "60 classes", "1000 classes"])
def test_it_prints_on_a4_with_every_picture_beside_its_name(
    browser: Browser, drawn: Callable[[str], Path], which: str
) -> None:
    """No page is empty, no card is cut by the end of one, and no heading is left behind by its pictures."""
    page, _ = opened(browser, drawn(which))
    cards = page.locator("#images .cards li").count()
    pages = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True, format="A4"))).pages
    page.context.close()
    texts = [unicodedata.normalize("NFKC", one.extract_text()) for one in pages]  # fonts have signs for "fi"
    images = [len(one.images) for one in pages]
    assert {(round(one.mediabox.width), round(one.mediabox.height)) for one in pages} == {(596, 843)}
    assert min(map(len, texts)) > 150 and len(pages) <= 8
    assert sum(images) == 2 * cards
    # The end of a file's name is shown however long it is.
    assert [text.count("trip.jpg") for text in texts] == [count // 2 for count in images]
    for heading in ("Most confident mistakes", "Least confident predictions"):
        (place,) = [number for number, text in enumerate(texts) if heading in text]
        assert images[place] > 0


@pytest.mark.parametrize(("which", "most"), [("10 classes", 400_000), ("1000 classes", 2_000_000)])
def test_it_is_small_enough_to_send(drawn: Callable[[str], Path], which: str, most: int) -> None:
    assert (drawn(which) / "report.html").stat().st_size <= most


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


def test_no_text_is_too_small_to_read(browser: Browser, drawn: Callable[[str], Path]) -> None:
    """No text is smaller than 9 pixels on a phone, including text in charts."""
    page, _ = opened(browser, drawn("60 classes"), viewport={"width": 390, "height": 900})
    sizes = page.evaluate(
        """[...document.querySelectorAll("svg text, td, th, p, li, dd, dt, span, a")].map(element => {
            const matrix = element.getScreenCTM ? element.getScreenCTM() : {a: 1, b: 0};
            return parseFloat(getComputedStyle(element).fontSize) * Math.hypot(matrix.a, matrix.b);
        })"""
    )
    assert len(sizes) > 100 and min(sizes) >= 9
    page.context.close()
