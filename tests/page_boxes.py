"""Look for what is wrong with a page in a browser: texts that overlap, are cut off or broken, and what axe finds."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from visionadapt.html.pages import LONGEST_WORD

_PROBLEMS = """(longest) => {
    const shown = element => element.checkVisibility() && !element.closest("title, style");
    const nodes = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode;
        if (node.data.trim() && shown(node.parentElement)) nodes.push(node);
    }
    const rectangles = (node, start, end) => {
        const range = document.createRange();
        range.setStart(node, start);
        range.setEnd(node, end);
        return [...range.getClientRects()].filter(box => box.width > 0);
    };
    const problems = [], width = document.documentElement.clientWidth;
    const boxes = nodes.flatMap(node => rectangles(node, 0, node.length).map(box => ({box, node, text: node.data})));
    for (const image of document.images) {
        if (shown(image)) boxes.push({box: image.getBoundingClientRect(), node: image, text: image.alt});
    }
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
    for (const node of nodes) {
        if (getComputedStyle(node.parentElement).writingMode !== "horizontal-tb") continue;
        for (const word of node.data.matchAll(/\\d[\\d.,]*(\\s%)?|[\\p{L}\\p{N}\\p{M}]+/gu)) {
            if (word[0].length > longest || word[0].length < 2) continue;
            const lines = rectangles(node, word.index, word.index + word[0].length).map(box => box.bottom);
            if (Math.max(...lines) - Math.min(...lines) > 5) problems.push(`broken: ${word[0]}`);
        }
    }
    for (const element of document.body.querySelectorAll("*")) {
        if (!shown(element) || element.closest("svg") || element.matches(".scroll")) continue;
        const style = getComputedStyle(element), cuts = way => !["visible", "auto", "scroll"].includes(way);
        const wide = element.scrollWidth > element.clientWidth + 1;
        const high = element.scrollHeight > element.clientHeight + 1;
        if ((cuts(style.overflowX) && wide) || (cuts(style.overflowY) && high)) {
            problems.push(`cut off: ${element.textContent}`);
        }
    }
    for (const element of document.querySelectorAll(".scroll")) {
        const hides = width > 1000 && shown(element) && element.scrollWidth > element.clientWidth + 1;
        if (hides) problems.push(`columns are out of sight: ${element.textContent}`);
    }
    for (const drawing of document.querySelectorAll("svg.chart")) {
        if (!shown(drawing)) continue;
        const frame = drawing.getBoundingClientRect();
        for (const text of drawing.querySelectorAll("text")) {
            const box = text.getBoundingClientRect();
            if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1) {
                problems.push(`cut off: ${text.textContent}`);
            }
        }
    }
    return problems.map(text => text.replace(/\\s+/g, " ").slice(0, 90));
}"""


def problems(page: Page) -> list[str]:
    """Unfold the page, and return each text or image that leaves it or overlaps another, and each word cut or broken.

    Words of more than `LONGEST_WORD` letters may be broken.
    """
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    return page.evaluate(_PROBLEMS, LONGEST_WORD)


def inaccessible(page: Page, *, structure: bool = True) -> list[tuple[str, list[str]]]:
    """Return the rules of axe that a page breaks, and by which elements; without those of structure, of contrast alone.

    All that keeps to the rules would be described too, which takes as long as to find what does not.
    """
    chosen = {} if structure else {"runOnly": ["color-contrast"]}
    found = Axe().run(page, options={"resultTypes": ["violations"], **chosen}).response["violations"]
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]
