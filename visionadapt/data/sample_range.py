"""Measure the range of samples of more than 8 bits once over a set, so that all of its images are scaled alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from visionadapt.core.records import LocalSource, Manifest
from visionadapt.data.dataset import Rows, reads_ahead
from visionadapt.data.loading import choose_workers, samples
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter, Preprocessing
from visionadapt.images.depth import set_range
from visionadapt.images.extent import Extent, may_be_deep
from visionadapt.sources.opening import RowsLike, manifest_of

_FIRST = 32
"""Files of a remote source that are read to find out whether it has deep ones at all."""
_OUTLYING = 4


@dataclass(frozen=True)
class _Extents(Rows[Extent | None]):
    """What each row's samples use; None for a row of 8 bits, or one that cannot be used."""

    manifest: Manifest
    decode: DecodeAdapter

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def reads_ahead(self) -> int:
        """How many rows are worth reading at once."""
        return reads_ahead(self.manifest)

    def opened(self, index: int) -> Callable[[], Extent | None]:
        """Read a row's file; the returned function measures it."""
        try:
            return partial(self.decode.extent, self.manifest.read(index))
        except ImageError:
            return lambda: None


def with_measured_range(
    prepare: Preprocessing, rows: RowsLike, *, workers: int = -1, say: Callable[[str], None] | None = None
) -> Preprocessing:
    """Return the preprocessing with the `sample_range` that the images of a set use.

    It changes nothing if a range is set, or if all images have 8 bits per sample or declare their range. Files that
    their suffix shows to have 8 bits are not read.

    Args:
        prepare: the preprocessing.
        rows: the training rows.
        workers: processes that read images; -1 chooses.
        say: called with a line that tells the range, if one was measured.
    """
    decode, manifest = prepare.decode, manifest_of(rows)
    if decode.sample_range is not None:
        return prepare
    order = [index for index in range(len(manifest)) if _may_be_deep(manifest, index)]
    scan = _Extents(manifest, decode)
    if not isinstance(manifest.source, LocalSource) and not _found(scan, _spread(order), 0):
        return prepare
    found = _found(scan, order, choose_workers(workers, len(order)))
    low, high = min((each.low for each in found), default=0), max((each.high for each in found), default=0)
    if low == high:
        return prepare
    floats = all(each.dtype.startswith("float") for each in found)
    chosen = replace(decode, sample_range=set_range(low, high, floats))
    if say is not None:
        say(_line(chosen, found))
    return replace(prepare, steps=(chosen, *prepare.steps[1:]))


def _may_be_deep(manifest: Manifest, index: int) -> bool:
    if not may_be_deep(manifest.key(index)):
        return False
    record = manifest[index]
    return record.problem is None and may_be_deep(record.location or record.key)


def _found(scan: _Extents, order: Sequence[int], workers: int) -> list[Extent]:
    found: Iterator[Extent | None] = samples(scan, workers, order)
    return [each for each in found if each is not None]


def _spread(order: Sequence[int]) -> Sequence[int]:
    return order[:: max(1, len(order) // _FIRST)][:_FIRST]


def _line(decode: DecodeAdapter, found: Sequence[Extent]) -> str:
    low, high = decode.sample_range if isinstance(decode.sample_range, tuple) else (0, 0)
    kinds = Counter(each.dtype for each in found)
    count = ", ".join(f"{number:,} of {dtype}" for dtype, number in kinds.most_common())
    line = (
        f"samples of more than 8 bits have the range {low:.6g}…{high:.6g}, from black to white, as measured on "
        f"{len(found):,} images ({count}); --sample-range sets another"
    )
    most = max(each.most for each in found)
    if len(kinds) > 1 and max(_highs(found)) > _OUTLYING * min(_highs(found)):
        line += "; these kinds use different ranges: train on one of them, or convert them alike"
    elif most - low < (high - low) / _OUTLYING:
        line += f"; 99.9 % of the samples of each image lie below {most:.6g}: --sample-range {low:.6g},{most:.6g}"
    return line


def _highs(found: Sequence[Extent]) -> list[float]:
    return [max(each.high for each in found if each.dtype == dtype) for dtype in {each.dtype for each in found}]
