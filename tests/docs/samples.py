"""Some of the sample images, for pages and notebooks that train on them: every kind of file, and few of each class."""

from __future__ import annotations

import shutil
from collections.abc import Set
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = {"cmyk.jpg", "landscape.jpg", "palette.png", "small.png"}
"""Files that pages speak of."""


def few_samples(folder: Path, train: int = 12, val: int = 6, named: Set[str] = NAMED) -> Path:
    """Copy some of the sample images of each class below `folder`, and all that are named; return their folder.

    `named` has names of files, in any class, or a class and a file: `fish/panorama.jpg`.
    """
    for source in sorted((ROOT / "sample_images").glob("*/*")):
        if source.is_dir():
            names = sorted(path.name for path in source.iterdir())
            kept = {
                *names[: train if source.parent.name == "train" else val],
                *(name for name in names if named & {name, f"{source.name}/{name}"}),
            }
            target = folder / "sample_images" / source.parent.name / source.name
            target.mkdir(parents=True)
            for name in kept:
                shutil.copy(source / name, target)
    return folder / "sample_images"
