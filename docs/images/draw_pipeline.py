"""Draw `pipeline.png`: sample images as they are on disk, and the batch that the image adapters make of them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from visionadapt import images

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "sample_images" / "train"
# Each file with what its caption says besides the size.
CHOSEN = {
    "mug/square_300.jpg": "JPEG",
    "butterfly/square_400.jpg": "JPEG",
    "fish/panorama.jpg": "panorama",
    "guitar/portrait.jpg": "portrait",
    "perch/turned_6.jpg": "EXIF: turn right",
    "mug/transparent.png": "RGBA PNG",
    "jug/cmyk.jpg": "CMYK JPEG",
    "fish/grey_16_bit.png": "16-bit PNG",
    "butterfly/animation.gif": "animated GIF",
}
SIZE = 224
WIDTH, MARGIN, GAP = 1800, 36, 18
TOP, TILE = 250, 182
INK, SOFT, PAPER, ACCENT = "#1f2430", "#6b7280", "#f5f6f8", "#3b6fd4"


def main() -> None:
    """Write the image next to this file."""
    canvas = Image.new("RGB", (WIDTH, 2 * MARGIN + TOP + TILE + 150), PAPER)
    draw = ImageDraw.Draw(canvas)
    _draw_files(canvas, draw, MARGIN + 34)
    middle = MARGIN + TOP + 78
    _draw_arrow(draw, middle)
    _draw_batch(canvas, draw, middle + 50)
    canvas.quantize(256, dither=Image.Dither.NONE).save(HERE / "pipeline.png", optimize=True)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_files(canvas: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
    """The files as a reader that ignores orientation and transparency shows them, all on one scale."""
    stored = [_as_stored(SAMPLES / name) for name in CHOSEN]
    scale = (WIDTH - 2 * MARGIN - GAP * (len(stored) - 1)) / sum(image.width for image in stored)
    scale = min(scale, (TOP - 40) / max(image.height for image in stored))
    room = WIDTH - 2 * MARGIN - scale * sum(image.width for image in stored)
    gap = room / (len(stored) - 1)
    draw.text((MARGIN, top - 38), "files, any size, mode and format", INK, _font(24))
    left = float(MARGIN)
    for image, caption in zip(stored, CHOSEN.values(), strict=True):
        shown = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        bottom = top + TOP - 30
        canvas.paste(shown, (round(left), bottom - shown.height))
        centre = left + shown.width / 2
        draw.text((centre, bottom + 8), f"{image.width} x {image.height}", INK, _font(17), anchor="mt")
        draw.text((centre, bottom + 29), caption, SOFT, _font(16), anchor="mt")
        left += shown.width + gap


def _as_stored(path: Path) -> Image.Image:
    with Image.open(path) as image:
        if image.mode == "I;16":
            return image.point(lambda value: value / 257, "L").convert("RGB")
        if image.mode != "RGBA":
            return image.convert("RGB")
        board = Image.new("RGB", image.size, "white")
        squares = ImageDraw.Draw(board)
        for x in range(0, image.width, 20):
            for y in range((x // 20 % 2) * 20, image.height, 40):
                squares.rectangle((x, y, x + 19, y + 19), fill="#d6d9de")
        board.paste(image, mask=image.getchannel("A"))
        return board


def _draw_arrow(draw: ImageDraw.ImageDraw, middle: int) -> None:
    words = f'DecodeAdapter()   then   ResizeAdapter({SIZE}, policy="letterbox")'
    draw.text((WIDTH / 2 + 30, middle), words, ACCENT, _font(26), anchor="mm")
    left = WIDTH / 2 - draw.textlength(words, _font(26)) / 2 - 20
    draw.line((left, middle - 22, left, middle + 12), fill=ACCENT, width=5)
    draw.polygon((left - 13, middle + 8, left + 13, middle + 8, left, middle + 26), fill=ACCENT)


def _draw_batch(canvas: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
    """The same images after the adapters, side by side in the order of the batch."""
    decode, resize = images.DecodeAdapter(), images.ResizeAdapter(SIZE, policy="letterbox")
    batch = torch.stack([resize(decode(SAMPLES / name)) for name in CHOSEN])
    step = (WIDTH - 2 * MARGIN - TILE) / (len(batch) - 1)
    for index, pixels in enumerate(batch):
        tile = to_pil_image(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS)
        canvas.paste(tile, (round(MARGIN + index * step), top))
    shape = ", ".join(map(str, batch.shape))
    draw.text((MARGIN, top + TILE + 14), f"one batch: uint8 [{shape}]", INK, _font(24))


if __name__ == "__main__":
    main()
