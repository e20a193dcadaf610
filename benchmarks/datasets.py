"""Write small public data sets as class folders, for benchmarks: `python benchmarks/datasets.py OUT`.

Fashion-MNIST comes from Debian's package `dataset-fashion-mnist`, the digits from scikit-learn. A fixed
number of images per class goes to `train/` and another to `val/`, in the data set's own order.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def main(out: Path, train: int = 40, val: int = 40) -> None:
    """Write both data sets below `out`."""
    digits = load_digits()
    write(
        out / "digits",
        np.rint(digits.images * 255 / 16).astype(np.uint8),
        digits.target,
        list("0123456789"),
        train,
        val,
    )
    if FASHION.exists():
        write(out / "fashion", *read_fashion(), FASHION_CLASSES, train, val)


def read_fashion() -> tuple[np.ndarray, np.ndarray]:
    """The training images uint8 [N, 28, 28] and their labels uint8 [N]."""
    images = gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FASHION / "train-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def write(out: Path, images: np.ndarray, labels: np.ndarray, names: list[str], train: int, val: int) -> None:
    """Write the first images of each class to `train/`, the next to `val/`."""
    for label, name in enumerate(names):
        rows = np.flatnonzero(labels == label)[: train + val]
        for place, row in enumerate(rows):
            folder = out / ("train" if place < train else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(folder / f"{row:05d}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
