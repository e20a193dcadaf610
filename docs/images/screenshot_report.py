"""Take `report.png`: train on the sample images, and photograph parts of the report in headless Chromium.

    python docs/images/screenshot_report.py [RUN]

With RUN, the report of that run folder is taken instead of training a new one.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHROMIUM = "/usr/bin/chromium"
WIDTH, MARGIN = 1180, 12
SHOWN = ("result", "images")
TRAIN = ("--data", str(ROOT / "sample_images"))


def main(run: Path | None = None) -> None:
    """Write the image next to this file."""
    with tempfile.TemporaryDirectory() as folder:
        if run is None:
            run = Path(folder) / "sample_images"
            subprocess.run([sys.executable, "-m", "visionadapt.train", *TRAIN, "--out", run], check=True, cwd=ROOT)
        screenshot(run / "report.html").save(HERE / "report.png", optimize=True)


def screenshot(report: Path) -> Image.Image:
    """The sections `SHOWN` of a report one below the other, in 256 colours; of the images only the first row."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        hidden = "".join(f":not(#{name})" for name in SHOWN)
        style = f"section{hidden}, header nav, footer {{ display: none }} header {{ padding-top: {MARGIN}px }}"
        page.add_style_tag(content=style)
        bottom = page.locator("#images .cards li").first.evaluate("card => card.getBoundingClientRect().bottom")
        pixels = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + MARGIN})
        browser.close()
    return Image.open(io.BytesIO(pixels)).convert("RGB").quantize(256, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
