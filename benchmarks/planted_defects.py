"""Measure the audit: plant duplicates, conflicts and wrong labels into 600 images, and count what it finds.

    python benchmarks/planted_defects.py PHOTOS 400 401 402

PHOTOS holds class folders, at any depth; each number is a seed. The images are copied, never changed.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageEnhance

from visionadapt import auditing, sources

PICTURES = 600
COPIES = {"exact": 12, "near": 12, "conflict": 3}
WRONG = 20
FIRST = 30


@dataclass
class Planted:
    """What was planted, by the names of the files: pairs of copies, and wrong labels."""

    pairs: dict[str, set[frozenset[str]]] = field(default_factory=lambda: {kind: set() for kind in COPIES})
    wrong: set[str] = field(default_factory=set)

    @property
    def leaks(self) -> set[frozenset[str]]:
        """The pairs on two sides."""
        pairs = set().union(*self.pairs.values())
        return {pair for pair in pairs if len({name.partition("/")[0] for name in pair}) == 2}


def near_copy(data: bytes, draw: random.Random) -> bytes:
    """The image saved again, and one or more of: cropped by up to 5 % per side, resized, brightened, at low quality."""
    with Image.open(io.BytesIO(data)) as file:
        image = file.convert("RGB")
    changes = draw.sample(["crop", "resize", "brighten", "quality"], k=draw.randint(1, 4))
    if "crop" in changes:
        left, top, right, bottom = (draw.uniform(0, 0.05) for _ in range(4))
        width, height = image.size
        box = (int(width * left), int(height * top), int(width * (1 - right)), int(height * (1 - bottom)))
        image = image.crop(box)
    if "resize" in changes:
        scale = draw.uniform(0.4, 1.3)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    if "brighten" in changes:
        image = ImageEnhance.Brightness(image).enhance(draw.uniform(0.75, 1.3))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=draw.randint(40, 90) if "quality" in changes else 92)
    return buffer.getvalue()


def plant(photos: Path, root: Path, seed: int) -> Planted:
    """Make `root/{train,val}/<class>/<number>.jpg` of some photos, a fifth of them in val, with defects."""
    draw = random.Random(seed)
    files = draw.sample(sorted(photos.rglob("*.jpg")), PICTURES)
    classes = sorted({path.parent.name for path in files})
    rows = [[path.read_bytes(), path.parent.name, "val" if draw.random() < 0.2 else "train"] for path in files]
    order = draw.sample(range(PICTURES), PICTURES)
    pairs: dict[str, list[tuple[int, int]]] = {kind: [] for kind in COPIES}
    for kind, count in COPIES.items():
        for _ in range(count):
            first, second = order.pop(), order.pop()
            rows[second] = [*rows[first][:2], draw.choice(["train", "val"])]
            rows[first][2] = "train"
            if kind == "near":
                rows[second][0] = near_copy(rows[first][0], draw)
            if kind == "conflict":
                rows[second][1] = draw.choice([name for name in classes if name != rows[first][1]])
            pairs[kind].append((first, second))
    wrong = [order.pop() for _ in range(WRONG)]
    for row in wrong:
        rows[row][1] = draw.choice([name for name in classes if name != rows[row][1]])
    names = [f"{part}/{label}/{row:04d}.jpg" for row, (_, label, part) in enumerate(rows)]
    for name, (data, _, _) in zip(names, rows, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    together = {kind: {frozenset({names[a], names[b]}) for a, b in found} for kind, found in pairs.items()}
    return Planted(together, {names[row] for row in wrong})


def measure(photos: Path, seed: int) -> dict[str, int]:
    """What an audit finds of one planting."""
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(photos, Path(folder), seed)
        audit = auditing.audit(sources.FolderSource(folder))
    found = {kind: [item for item in audit.findings if item.kind == kind] for kind in auditing.KINDS}
    pairs = {kind: {frozenset({item.file, item.other}) for item in items} for kind, items in found.items()}
    return {
        "exact": len(planted.pairs["exact"] & pairs["exact_duplicate"]),
        "near": len(planted.pairs["near"] & pairs["near_duplicate"]),
        "conflicts": len(planted.pairs["conflict"] & pairs["conflict"]),
        "false conflicts": len(pairs["conflict"] - planted.pairs["conflict"]),
        "leaks missed": len(planted.leaks - pairs["leak"]),
        "false leaks": len(pairs["leak"] - planted.leaks),
        f"wrong labels in first {FIRST}": len(planted.wrong & {item.file for item in found["label_error"][:FIRST]}),
    }


def main(photos: Path, seeds: list[int]) -> None:
    """Measure each seed, and the means."""
    results = []
    for seed in seeds:
        results.append(measure(photos, seed))
        print(seed, results[-1], flush=True)
    print("mean", {name: sum(result[name] for result in results) / len(results) for name in results[0]})


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
