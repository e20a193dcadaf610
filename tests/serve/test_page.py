"""The page in a browser: an image dropped becomes a label and a heat map, and nothing else is asked for."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import visionadapt as va
from tests.page_boxes import inaccessible
from visionadapt.serve import server
from visionadapt.serve.app import application
from visionadapt.serve.runs import ServedRuns

from .conftest import ADAPTERS, LIMITS, image

pytestmark = pytest.mark.slow

SLOW = 60_000
"""Milliseconds."""

DROP = """([data, name]) => {
    const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name));
    document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def address(served: ServedRuns) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    with server.bind("127.0.0.1", 0) as bound:
        ready = threading.Event()
        made = server.made(application(served, LIMITS), LIMITS.seconds, ready.set)
        thread = threading.Thread(target=made.run, kwargs={"sockets": [bound]})
        thread.start()
        assert ready.wait(60)
        yield server.address_of(bound)
        made.should_exit = True
        thread.join()


def opened(browser: Browser, address: str, path: str = "/", **settings: Any) -> tuple[Page, list[str]]:
    """Open a page; return it, and every request to another host, console message and error."""
    told: list[str] = []
    page = browser.new_context(**settings).new_page()
    own = (f"{address}/", "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else told.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(f"{address}{path}")
    return page, told


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_a_dropped_image_becomes_a_label_and_a_heat_map(
    browser: Browser, address: str, folders: dict[str, Path], width: int, theme: str
) -> None:
    page, told = opened(browser, address, viewport={"width": width, "height": 900}, color_scheme=theme)
    data = image(7)
    page.evaluate(DROP, [base64.b64encode(data).decode(), "<b>seven.png"])
    expect(page.locator("#answers li")).to_have_count(len(ADAPTERS), timeout=SLOW)
    for card, name in zip(page.locator("#answers li").all(), ADAPTERS, strict=True):
        own = va.load(folders[name]).predict(data)
        assert card.locator("h2").inner_text().startswith(f"{own.label} {100 * own.probability:.1f}")
        assert f"<b>seven.png · {name}" in card.inner_text()
        assert ("Abstains" in card.inner_text()) == own.abstain
        assert ("Odd" in card.inner_text()) == (own.distance > 1)
        widths = card.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(widths) == 2 and all(width > 0 for width in widths)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert inaccessible(page) == []
    assert told == []
    page.context.close()


def test_a_chosen_file_that_cannot_be_used_is_shown_with_the_reason(browser: Browser, address: str) -> None:
    page, told = opened(browser, address)
    page.locator("#run").select_option("lora")
    files = [
        {"name": "text.jpg", "mimeType": "image/jpeg", "buffer": b"no image"},
        {"name": "sound.png", "mimeType": "image/png", "buffer": image(3)},
    ]
    page.locator("#files").set_input_files(files)  # type: ignore[arg-type]
    expect(page.locator("#answers li")).to_have_count(2, timeout=SLOW)
    assert page.locator("#answers p.bad", has_text="not an image").count() == 1
    assert page.locator("#answers h2").count() == 1
    assert inaccessible(page) == []
    assert [text for text in told if "415" not in text] == []
    page.context.close()


def test_the_page_about_requests_is_quiet_and_fits(browser: Browser, address: str) -> None:
    page, told = opened(browser, address, "/docs", viewport={"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert inaccessible(page) == []
    assert told == []
    page.context.close()
