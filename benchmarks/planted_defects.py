"""Measure the audit: plant copies, wrong labels, blurred and dark images, and compute precision and recall.

    python benchmarks/planted_defects.py PHOTOS 500 501

PHOTOS holds class folders, at any depth; each number is a seed. The images are copied, never changed. A seed takes
about a minute, most of it for the features of the new images.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from visionadapt import auditing, sources

PICTURES = 600
WRONG, COPIES, SPOILT = 0.05, 0.03, 0.03
FIRST = 12


def cropped(image: Image.Image) -> Image.Image:
    """Cut 5 % off every side."""
    wide, high = round(image.width * 0.05), round(image.height * 0.05)
    return image.crop((wide, high, image.width - wide, image.height - high))


COPIED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized to half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped by 5 % on every side": cropped,
    "mirrored": ImageOps.mirror,
    "saved again at quality 50": lambda image: image,
    "brightened to 1.3 times": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "all of these": lambda image: ImageEnhance.Brightness(
        ImageOps.mirror(cropped(image)).resize((image.width // 2, image.height // 2))
    ).enhance(1.3),
}
SPOILING: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 100)),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.25),
}


@dataclass
class Planted:
    """What was planted, by the names of the files: pairs of copies, and wrong labels, blurred and dark images."""

    pairs: dict[frozenset[str], str] = field(default_factory=dict)
    rows: dict[str, set[str]] = field(default_factory=lambda: {"label_error": set(), "blurred": set(), "dark": set()})


def changed(data: bytes, change: Callable[[Image.Image], Image.Image], quality: int) -> bytes:
    """The image changed and saved again as JPEG."""
    with Image.open(io.BytesIO(data)) as file:
        image = change(file.convert("RGB"))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def plant(photos: Path, root: Path, seed: int) -> Planted:
    """Make `root/{train,val}/<class>/<name>.jpg` of some photos, a fifth of them in val, with defects and copies."""
    draw = random.Random(seed)
    files = draw.sample(sorted(photos.rglob("*.jpg")), PICTURES)
    classes, planted = sorted({path.parent.name for path in files}), Planted()
    order = iter(draw.sample(files, PICTURES))

    def write(name: str, label: str, data: bytes) -> str:
        key = f"{'val' if draw.random() < 0.2 else 'train'}/{label}/{name}.jpg"
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
        return key

    def share(part: float) -> list[Path]:
        return [next(order) for _ in range(round(PICTURES * part))]

    for path in share(WRONG):
        label = draw.choice([name for name in classes if name != path.parent.name])
        planted.rows["label_error"].add(write(path.stem, label, path.read_bytes()))
    for kind, change in SPOILING.items():
        for path in share(SPOILT):
            planted.rows[kind].add(write(path.stem, path.parent.name, changed(path.read_bytes(), change, 90)))
    for kind, change in COPIED.items():
        for path in share(COPIES):
            quality = 50 if "quality" in kind or "all" in kind else 90
            copy = write(f"{path.stem}-copy", path.parent.name, changed(path.read_bytes(), change, quality))
            planted.pairs[frozenset({copy, write(path.stem, path.parent.name, path.read_bytes())})] = kind
    for path in order:
        write(path.stem, path.parent.name, path.read_bytes())
    return planted


def measure(photos: Path, seed: int) -> dict[str, Counter[str]]:
    """Count what was planted, found and reported, by what it is."""
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(photos, Path(folder), seed)
        audit = auditing.audit(sources.FolderSource(folder))
    pairs = {frozenset({item.file, item.other}) for item in audit.by_kind.get("near_duplicate", ())}
    counts = {"near copies": Counter(planted=len(planted.pairs), found=len(pairs & planted.pairs.keys()))}
    counts["near copies"]["reported"] = len(pairs)
    for kind in COPIED:
        own = {pair for pair, name in planted.pairs.items() if name == kind}
        counts[f"- {kind}"] = Counter(planted=len(own), found=len(own & pairs))
    for kind, rows in planted.rows.items():
        listed = [item.file for item in audit.by_kind.get(kind, ())]
        counts[kind] = Counter(planted=len(rows), found=len(rows & set(listed)), reported=len(listed))
        if kind == "label_error":
            first = listed[:FIRST]
            counts[f"the first {FIRST} of these"] = Counter(found=len(rows & set(first)), reported=len(first))
    leaks = {frozenset({item.file, item.other}) for item in audit.by_kind.get("leak", ())}
    crossing = {pair for pair in planted.pairs if len({name.partition("/")[0] for name in pair}) == 2}
    counts["leaks"] = Counter(planted=len(crossing), found=len(crossing & leaks), reported=len(leaks))
    return counts


def main(photos: Path, seeds: list[int]) -> None:
    """Print the table of all seeds together."""
    totals: dict[str, Counter[str]] = {}
    for seed in seeds:
        for name, counts in measure(photos, seed).items():
            totals.setdefault(name, Counter()).update(counts)
    print("| | planted | found | reported | recall | precision |\n|---|---|---|---|---|---|")
    for name, counts in totals.items():
        recall = f"{counts['found'] / counts['planted']:.3f}" if counts["planted"] else ""
        precision = f"{counts['found'] / counts['reported']:.3f}" if counts["reported"] else ""
        planted, reported = counts["planted"] or "", counts["reported"] or ""
        print(f"| {name} | {planted} | {counts['found']} | {reported} | {recall} | {precision} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
