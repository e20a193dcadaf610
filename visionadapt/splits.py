"""Divide rows into training and validation parts, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

from visionadapt.errors import SplitError
from visionadapt.records import Manifest, Source, stable_hash


def split(rows: Source | Manifest, val: float = 0.2, seed: int = 0) -> tuple[Manifest, Manifest]:
    """Return the training and the validation part; rows marked `test` belong to neither.

    Where rows say `val` themselves, that is the validation part. Otherwise the share `val` of each class is taken:
    the rows whose hash of (seed, key) is smallest, rounded, at least one and never all. A row's place depends on no
    machine, order or other class.

    Raises:
        SplitError: `val` is no share, there are fewer than two classes, or a class has too few rows.
    """
    manifest = _without_test(rows)
    _check_classes(manifest)
    own = [manifest[index].split for index in range(len(manifest))]
    if "val" in own:
        train = manifest.select(index for index, part in enumerate(own) if part != "val")
        chosen = manifest.select(index for index, part in enumerate(own) if part == "val")
    else:
        train, chosen = _stratified(manifest, val, seed)
    _check_training(train)
    return train, chosen


def check_usable(train: Manifest, val: Manifest) -> None:
    """Raise SplitError where what is left of the parts cannot be trained on."""
    _check_training(train)
    if not len(val):
        raise SplitError("the validation part has no usable picture; add some, or let --val take a share of train/")


def _without_test(rows: Source | Manifest) -> Manifest:
    if isinstance(rows, Manifest):
        return rows.where(lambda record: record.split != "test")
    return Manifest(rows, (record for record in rows if record.split != "test"))


def _stratified(manifest: Manifest, val: float, seed: int) -> tuple[Manifest, Manifest]:
    if not 0 < val < 1:
        raise SplitError(f"--val {val} is no share: give a number between 0 and 1, such as 0.2")
    chosen: set[int] = set()
    for label, indices in _by_class(manifest).items():
        if label >= 0 and len(indices) < 2:
            raise SplitError(
                f"class {manifest.classes[label]!r} has {len(indices)} picture; it needs 2 at least, one to train on "
                "and one to validate with"
            )
        ranked = sorted(indices, key=lambda index: (stable_hash(seed, manifest.key(index)), manifest.key(index)))
        chosen.update(ranked[: min(max(round(len(ranked) * val), 1), len(ranked) - 1)])
    rows: Sequence[int] = range(len(manifest))
    return manifest.select(i for i in rows if i not in chosen), manifest.select(i for i in rows if i in chosen)


def _by_class(manifest: Manifest) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for index in range(len(manifest)):
        groups.setdefault(manifest.label(index), []).append(index)
    return groups


def _check_classes(manifest: Manifest) -> None:
    if not len(manifest):
        raise SplitError(f"{manifest.source!r} holds no pictures")
    if len(manifest.classes) < 2:
        only = manifest.classes[0] if manifest.classes else "none"
        raise SplitError(f"{manifest.source!r} has one class ({only}); a classifier needs two at least")


def _check_training(train: Manifest) -> None:
    for name, count in zip(train.classes, train.class_counts(), strict=True):
        if count == 0:
            raise SplitError(f"class {name!r} has no usable picture to train on; add some, or remove the class")
