"""How a thing is painted: the look of a picture (colours, style, background, pose, clutter), and the picture itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps
from shapes import Part, Point, ellipse, smooth

OVERSAMPLING = 3
STYLES = ("flat", "inked", "shaded", "hatched", "inked", "shaded", "outline")
BACKGROUNDS = ("plain", "gradient", "clouds", "stripes", "horizon", "dots", "speckles")
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Look:
    """Everything of a picture but the thing in it; the same looks serve every class.

    `scale` is the thing's extent as a share of the short side, `angle` is in degrees, `shift` in shares of the short
    side, `grain` the standard deviation of the added noise in grey levels.
    """

    style: str
    background: str
    hue: float
    tone: float
    contrast: float
    scale: float
    angle: float
    stretch: float
    flipped: bool
    shift: Point
    clutter: int
    grain: float
    shadow: bool


def make_looks(count: int, random: Random) -> list[Look]:
    """`count` looks that cover styles, backgrounds, hues, tones and scales evenly, in a random order."""

    def shuffled(values: list[float]) -> list[float]:
        return random.sample(values, count)

    steps = [index / (count - 1) for index in range(count)]
    hues, tones, scales = shuffled(steps), shuffled(steps), shuffled(steps)
    angles, clutter, grain = shuffled(steps), shuffled(steps), shuffled(steps)
    styles = random.sample([STYLES[index % len(STYLES)] for index in range(count)], count)
    return [
        Look(
            style=styles[index],
            background=BACKGROUNDS[index % len(BACKGROUNDS)],
            hue=hues[index] * (1 - 1 / count),
            tone=(0.32, 0.44, 0.74, 0.86, 0.94)[int(tones[index] * 4.99)],
            contrast=random.uniform(0.32, 0.4),
            scale=0.58 + 0.34 * scales[index],
            angle=-20 + 40 * angles[index],
            stretch=random.uniform(0.88, 1.12),
            flipped=random.random() < 0.5,
            shift=(random.uniform(-1, 1), random.uniform(-1, 1)),
            clutter=int(clutter[index] * 6.99),
            grain=max(0.0, 12 * grain[index] - 5),
            shadow=random.random() < 0.4,
        )
        for index in range(count)
    ]


def colour(hue: float, lightness: float, chroma: float) -> Colour:
    """An sRGB colour from OKLCH (Ottosson 2020): hue in turns, lightness 0 to 1, chroma 0 to about 0.2."""
    lightness = min(max(lightness, 0.2), 0.97)
    lab = (lightness, chroma * math.cos(math.tau * hue), chroma * math.sin(math.tau * hue))
    cones = np.array([[1, 0.3963378, 0.2158038], [1, -0.1055613, -0.0638542], [1, -0.0894842, -1.2914855]]) @ lab
    mixing = [
        [4.0767417, -3.3077116, 0.2309699],
        [-1.2684380, 2.6097574, -0.3413194],
        [-0.0041961, -0.7034186, 1.7076147],
    ]
    linear = np.clip(np.array(mixing) @ cones**3, 0, 1)
    red, green, blue = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return round(255 * red), round(255 * green), round(255 * blue)


def palette(look: Look, random: Random) -> dict[str, Colour]:
    """A colour for each role, standing off from the background's tone."""
    dark = look.tone < 0.5
    tone = look.tone + (look.contrast if dark else -look.contrast)
    hue = look.hue + random.uniform(0.3, 0.7)
    return {
        "main": colour(hue, tone, random.uniform(0.12, 0.17)),
        "second": colour(hue + random.choice([-0.15, 0.15, 0.4]), tone + random.choice([-0.12, 0.14]), 0.12),
        "third": colour(hue + random.uniform(0.35, 0.65), tone + random.choice([-0.18, 0.18]), 0.11),
        "light": colour(hue, 0.97, 0.02),
        "ink": colour(hue, 0.22, 0.03),
        "outline": colour(hue, 0.95, 0.03) if dark else colour(hue, 0.22, 0.03),
        "paper": colour(look.hue, 0.25, 0.03) if dark else colour(look.hue, 0.97, 0.02),
    }


def paint_picture(parts: list[Part], look: Look, size: tuple[int, int], opaque: bool, random: Random) -> Image.Image:
    """The finished RGBA picture of `size` (width, height); a panorama shows the thing three times, side by side.

    Without `opaque` the background stays transparent.
    """
    copies = 1
    if size[0] > 2.5 * size[1]:
        copies, look = 3, replace(look, scale=max(look.scale, 0.8))
    large = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
    canvas = _background(look, large, random) if opaque else Image.new("RGBA", large, (0, 0, 0, 0))
    colours = palette(look, random)
    _clutter(canvas, look, colours, look.clutter if opaque else 0, random)
    for copy in range(copies):
        along = (copy - (copies - 1) / 2) * large[0] / copies
        placed = _placed(parts, look, large, along)
        if look.shadow:
            _cast_shadow(canvas, placed)
        for part in placed:
            _paint_part(canvas, part, look, colours, min(large))
    return _with_grain(canvas.reduce(OVERSAMPLING), look.grain if opaque else 0, random)


def _placed(parts: list[Part], look: Look, size: tuple[int, int], along: float) -> list[Part]:
    """The parts in pixels: centred, scaled, stretched, turned and shifted as the look has it."""
    xs = [x for part in parts for x, _ in part.points]
    ys = [y for part in parts for _, y in part.points]
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    unit = look.scale * min(size) / (0.6 * max(width, height) + 0.4 * math.sqrt(width * height))
    room = min(size) * max(0.04, (1 - look.scale) / 2)
    middle = (size[0] / 2 + along + look.shift[0] * room, size[1] / 2 + look.shift[1] * room)
    c, s = math.cos(math.radians(look.angle)), math.sin(math.radians(look.angle))
    mirror = -1 if look.flipped else 1

    def place(point: Point) -> Point:
        x = mirror * (point[0] - (max(xs) + min(xs)) / 2) * unit * look.stretch
        y = (point[1] - (max(ys) + min(ys)) / 2) * unit / look.stretch
        return middle[0] + c * x - s * y, middle[1] + s * x + c * y

    return [Part([place(point) for point in part.points], part.role, part.width * unit, part.detail) for part in parts]


def _stroke(draw: ImageDraw.ImageDraw, points: list[Point], width: float, ink: Colour | int) -> None:
    """A line with round joints and ends."""
    draw.line(points, fill=ink, width=max(1, round(width)), joint="curve")
    for x, y in (points[0], points[-1]):
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)


def _mask(part: Part, size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    if part.width:
        _stroke(draw, part.points, part.width, 255)
    else:
        draw.polygon(part.points, fill=255)
    return mask


def _cast_shadow(canvas: Image.Image, parts: list[Part]) -> None:
    """A soft, half-transparent shadow to the lower right of the thing."""
    mask = Image.new("L", canvas.size)
    for part in parts:
        if not part.detail:
            mask = ImageChops.lighter(mask, _mask(part, canvas.size))
    offset = min(canvas.size) // 40
    mask = ImageChops.offset(mask, offset, offset).filter(ImageFilter.BoxBlur(offset / 2))
    shadow = Image.new("RGBA", canvas.size, (20, 20, 30, 0))
    shadow.putalpha(mask.point(lambda value: value * 0.4))
    canvas.alpha_composite(shadow)


def _paint_part(canvas: Image.Image, part: Part, look: Look, colours: dict[str, Colour], unit: int) -> None:
    outlined = look.style in ("inked", "outline", "hatched")
    pen = unit / 75
    draw = ImageDraw.Draw(canvas)
    shade = colours["outline" if part.role == "ink" and not part.detail else part.role]
    if look.style == "outline":
        shade = colours["outline"] if part.role == "ink" or (part.detail and part.width) else colours["paper"]
    if part.width and outlined and not part.detail:
        _stroke(draw, part.points, part.width + 2 * pen, colours["outline"])
    _fill(canvas, part, shade, look.style)
    if not part.width and outlined:
        _stroke(draw, [*part.points, part.points[0]], pen * (0.6 if part.detail else 1.0), colours["outline"])


def _fill(canvas: Image.Image, part: Part, shade: Colour, style: str) -> None:
    if part.detail or style in ("flat", "inked", "outline"):
        canvas.paste(shade, mask=_mask(part, canvas.size))
    elif style == "shaded":
        light, dark = (tuple(min(255, round(value * factor)) for value in shade) for factor in (1.25, 0.55))
        canvas.paste(_graded(canvas.size, light, dark, part.points), mask=_mask(part, canvas.size))
    else:
        canvas.paste(_hatching(canvas.size, shade), mask=_mask(part, canvas.size))


def _graded(size: tuple[int, int], top: Colour, bottom: Colour, points: list[Point]) -> Image.Image:
    """A vertical gradient over the points' height."""
    low, high = min(y for _, y in points), max(y for _, y in points)
    levels = np.clip((np.arange(size[1]) - low) / max(high - low, 1), 0, 1)[:, None, None]
    rows = np.array(top) * (1 - levels) + np.array(bottom) * levels
    return Image.fromarray(rows.round().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def _hatching(size: tuple[int, int], shade: Colour) -> Image.Image:
    """Slanted lines of a darker tone."""
    darker = tuple(round(value * 0.72) for value in shade)
    image = Image.new("RGB", size, shade)
    draw, gap = ImageDraw.Draw(image), max(6, min(size) // 32)
    for x in range(-size[1], size[0], gap):
        draw.line([(x, size[1]), (x + size[1], 0)], fill=darker, width=max(1, gap // 4))
    return image


def _background(look: Look, size: tuple[int, int], random: Random) -> Image.Image:
    first = colour(look.hue, look.tone, random.uniform(0.04, 0.09))
    other = colour(look.hue + random.uniform(-0.12, 0.12), look.tone + random.choice([-0.07, 0.07]), 0.07)
    image = Image.new("RGB", size, first)
    unit = min(size)
    if look.background == "gradient":
        image = _graded(size, first, other, [(0, 0), (0, size[1])])
    elif look.background in ("clouds", "speckles"):
        image = _clouds(size, first, other, unit // 5 if look.background == "clouds" else unit // 60, random)
    elif look.background == "stripes":
        _stripes(image, other, unit // random.randint(5, 12), random.choice([0.0, 0.5, -0.5]))
    elif look.background == "horizon":
        line = size[1] * random.uniform(0.45, 0.75)
        ImageDraw.Draw(image).rectangle((0, line, *size), fill=other)
    elif look.background == "dots":
        _dots(image, other, unit // random.randint(7, 12))
    return image.convert("RGBA")


def _clouds(size: tuple[int, int], first: Colour, other: Colour, grain: int, random: Random) -> Image.Image:
    cells = (size[0] // grain + 2, size[1] // grain + 2)
    values = bytes(random.randrange(256) for _ in range(cells[0] * cells[1]))
    return ImageOps.colorize(Image.frombytes("L", cells, values).resize(size, Image.Resampling.BICUBIC), first, other)


def _stripes(image: Image.Image, shade: Colour, step: int, slant: float) -> None:
    draw, height = ImageDraw.Draw(image), image.height
    for x in range(-height, image.width + height, 2 * step):
        draw.line([(x, 0), (x + slant * height, height)], fill=shade, width=step)


def _dots(image: Image.Image, shade: Colour, step: int) -> None:
    draw, radius = ImageDraw.Draw(image), step / 4
    for row, y in enumerate(range(0, image.height + step, step)):
        for x in range(-step, image.width + step, step):
            shifted = x + (row % 2) * step / 2
            draw.ellipse((shifted - radius, y - radius, shifted + radius, y + radius), fill=shade)


def _clutter(canvas: Image.Image, look: Look, colours: dict[str, Colour], count: int, random: Random) -> None:
    """Blobs, bars, rings and triangles strewn behind the thing."""
    draw = ImageDraw.Draw(canvas)
    for _ in range(count):
        extent = min(canvas.size) * random.uniform(0.04, 0.14)
        x, y = random.uniform(0, canvas.width), random.uniform(0, canvas.height)
        shade = random.choice([colours["main"], colours["second"], colours["third"], colour(look.hue, 0.6, 0.1)])
        turn = random.uniform(0, math.pi)
        kind = random.choice(["blob", "bar", "ring", "triangle", "arc"])
        if kind == "blob":
            radii = [extent * random.uniform(0.5, 1.1) for _ in range(6)]
            knots = [
                (x + r * math.cos(k * math.pi / 3), y + r * math.sin(k * math.pi / 3)) for k, r in enumerate(radii)
            ]
            draw.polygon(smooth(knots), fill=shade)
        elif kind == "triangle":
            corners = [(x + extent * math.cos(turn + 2.1 * k), y + extent * math.sin(turn + 2.1 * k)) for k in range(3)]
            draw.polygon(corners, fill=shade)
        elif kind == "bar":
            across = (extent * math.cos(turn) * 1.6, extent * math.sin(turn) * 1.6)
            _stroke(draw, [(x - across[0], y - across[1]), (x + across[0], y + across[1])], extent * 0.35, shade)
        else:
            stop = 360 if kind == "ring" else 170
            _stroke(draw, ellipse(x, y, extent, extent, 0, stop), extent * 0.25, shade)


def _with_grain(image: Image.Image, deviation: float, random: Random) -> Image.Image:
    """The picture with Gaussian noise on its colours."""
    if deviation == 0:
        return image
    generator = np.random.default_rng(random.getrandbits(32))
    pixels = np.asarray(image).astype(np.float32)
    pixels[..., :3] += generator.normal(0, deviation, (*pixels.shape[:2], 1))
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))
