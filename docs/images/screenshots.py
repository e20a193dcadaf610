"""Take the pictures of `docs/gallery.md`: train on the sample images, and photograph what a user sees.

    python docs/images/screenshots.py [FOLDER]

FOLDER keeps the runs between calls: what is there already is not computed again. Needs Chromium, and the extras `dev`.
"""

from __future__ import annotations

import html
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyte
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHROMIUM = "/usr/bin/chromium"
WIDTH, MARGIN = 1180, 12
COLUMNS, LINES = 112, 60
SAMPLES = "sample_images"
ASKED = ("val/guitar/03.jpg", "val/jug/12.jpg", "train/mug/cmyk.jpg")


def main(folder: Path) -> None:
    """Write the images next to this file."""
    first, head, audit = folder / "runs" / "first", folder / "runs" / "head", folder / "audits" / "photos"
    screen, run = folder / "screen.txt", partial(typed, folder)
    if not (folder / SAMPLES).exists():
        shutil.copytree(ROOT / SAMPLES, folder / SAMPLES, ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
    if not first.exists():
        screen.write_text(run("train", SAMPLES, "--out", "runs/first"), encoding="utf-8")
    if not head.exists():
        run("train", SAMPLES, "--adapter", "none", "--out", "runs/head")
    if not (first / "evaluation").exists():
        run("evaluate", "runs/first", "--data", SAMPLES, "--split", "val", "--against", "runs/head")
    if not audit.exists():
        spoil(folder)
        run("audit", "photos", "--out", "audits/photos")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        save("console", console(browser, screen.read_text(encoding="utf-8")))
        save("report", parts(browser, first / "report.html", "#result", "#images", last="#images .cards li"))
        save("classes", parts(browser, first / "report.html", "#confusions", "#classes", header=False))
        save("comparison", parts(browser, first / "evaluation" / "report.html", "#compared", header=False))
        kinds = ("#summary", "#leak", "#conflict")
        save("audit", parts(browser, audit / "audit.html", *kinds, last="#conflict .cards li"))
        with served(first) as address:
            save("serve", asked(browser, address))
        browser.close()


def typed(folder: Path, *words: str) -> str:
    """Run a command in a folder, in a terminal of its own; return the command and what stays on the screen."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (LINES, COLUMNS))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "visionadapt", *words]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment)
    os.close(slave)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    while data := _read(master):
        stream.feed(data)
    if process.wait():
        raise SystemExit("\n".join(screen.display))
    shown = "\n".join(line.rstrip() for line in screen.display).rstrip()
    return f"$ visionadapt {' '.join(words)}\n{shown.replace(f'{folder.resolve()}/', '')}"


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:  # the command has ended
        return b""


def spoil(parent: Path) -> None:
    """Copy the sample images to photos, with mistakes that people make: copies in both splits, and two labels."""
    folder = parent / "photos"
    shutil.copytree(parent / SAMPLES, folder)
    for number in ("01", "04"):
        shutil.copy(folder / "val" / "fish" / f"{number}.jpg", folder / "train" / "fish" / f"IMG_{number}.jpg")
    shutil.copy(folder / "val" / "jug" / "02.jpg", folder / "val" / "mug" / "copy of 02.jpg")
    (folder / "val" / "guitar" / "download.jpg").write_bytes(b"")


def console(browser: Browser, text: str) -> Image.Image:
    """Draw the text of a terminal."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=1)
    style = (
        "margin: 0; padding: 20px; background: #11161c; color: #e8edf2; font: 16px/1.4 monospace; white-space: pre-wrap"
    )
    page.set_content(f"<pre style='{style}'>{html.escape(text)}</pre>")
    return picture(page.locator("pre").screenshot())


def parts(browser: Browser, path: Path, *sections: str, last: str = "", header: bool = True) -> Image.Image:
    """Photograph some sections of a page one below the other, down to the first element `last`, if there is one."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
    page.goto(path.resolve().as_uri())
    hidden = "".join(f":not({name})" for name in sections)
    top = f"padding-top: {MARGIN}px" if header else "display: none"
    page.add_style_tag(content=f"section{hidden}, header nav, footer {{ display: none }} header {{ {top} }}")
    end = page.locator(last or sections[-1]).first.evaluate("element => element.getBoundingClientRect().bottom")
    return whole(page, end + MARGIN)


def whole(page: Page, height: float) -> Image.Image:
    """Photograph a page from its top."""
    return picture(page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height}))


@contextmanager
def served(run: Path) -> Iterator[str]:
    """Serve a run, and give the address."""
    command = [sys.executable, "-m", "visionadapt", "serve", str(run), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://[\d.:]+", line)))
        process.terminate()


def asked(browser: Browser, address: str) -> Image.Image:
    """Drop images on the page of a server, and photograph the answers."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 700}, color_scheme="light")
    page.goto(address)
    page.locator("#files").set_input_files([ROOT / SAMPLES / name for name in ASKED])
    page.locator("#answers li").nth(len(ASKED) - 1).wait_for(timeout=120_000)
    bottom = page.locator("#answers").evaluate("element => element.getBoundingClientRect().bottom")
    return whole(page, bottom + MARGIN)


def picture(pixels: bytes) -> Image.Image:
    """Return a PNG in 256 colours."""
    return Image.open(io.BytesIO(pixels)).convert("RGB").quantize(256, dither=Image.Dither.NONE)


def save(name: str, image: Image.Image) -> None:
    """Write an image next to this file."""
    image.save(HERE / f"{name}.png", optimize=True)
    print(f"{name}.png: {(HERE / f'{name}.png').stat().st_size / 1000:.0f} kB, {image.width} × {image.height}")


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
