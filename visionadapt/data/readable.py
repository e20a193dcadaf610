"""Before the work begins: make sure that each class has an image to train on that can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding
from visionadapt.data.splits import check_usable, trainable, without_usable
from visionadapt.errors import ImageError


def readable(train: Manifest, val: Manifest, decode: Callable[[bytes, str], object]) -> tuple[Manifest, Manifest]:
    """Return the splits so that each class has an image in training that can be decoded; validation has one, too.

    Reads one image of each class, and further ones only where that cannot be decoded. A class all of whose training
    images are broken gets one from validation, unless the source itself assigns the splits. An image that may be
    readable later, such as one behind a URL, counts as readable.

    Args:
        train, val: the splits.
        decode: decodes the bytes of an image with a name; raises ImageError.

    Raises:
        SplitError: no training image of a class, or no validation image, can be decoded.
    """
    found: dict[str, str | None] = {}

    def problem(rows: Manifest, row: int) -> str | None:
        key = rows.key(row)
        if key not in found:
            found[key] = rows.problem(row) or _problem(rows, row, decode)
        return found[key]

    if "val" not in val.each_split():
        train, val = trainable(train, val, problem)
    if without_usable(train, problem) or all(problem(val, row) is not None for row in range(len(val))):
        parts = {"train": train, "val": val}
        check_usable(
            {name: (part, [_finding(part, row, found) for row in range(len(part))]) for name, part in parts.items()}
        )
    return train, val


def _finding(rows: Manifest, row: int, found: Mapping[str, str | None]) -> Finding:
    return Finding(row, problem=found.get(rows.key(row)) or rows.problem(row))


def _problem(rows: Manifest, row: int, decode: Callable[[bytes, str], object]) -> str | None:
    try:
        decode(rows.read(row), rows.key(row))
    except ImageError as error:
        return error.reason if error.lasting else None
    return None
