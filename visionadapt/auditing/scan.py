"""One pass over every row: what its file is, how large the picture is, and its fingerprints."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionadapt.auditing.fingerprints import HASH_BITS, SIDE, difference_hash, is_blank, pixel_digest, thumbnail
from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding, Rows
from visionadapt.data.loading import samples
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter
from visionadapt.images.decoder_warnings import without_warnings
from visionadapt.images.formats import READABLE

_ALIKE = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What one look at a row's file has shown.

    Attributes:
        finding: its SHA-256, what was repaired, and why it cannot be used.
        read: whether the bytes could be had.
        size: of the file in bytes.
        form: format by its content, as Pillow calls it; empty where it is unknown.
        mode: Pillow's mode as it is stored.
        height, width: of the upright picture in pixels.
        digest: of the upright pixels.
        hash: perceptual hash, 16 bytes.
        luma: thumbnail, 32 × 32 bytes.
        blank: whether it has one colour.
    """

    finding: Finding
    read: bool = False
    size: int = 0
    form: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0
    digest: str = ""
    hash: bytes = b""
    luma: bytes = b""
    blank: bool = False

    @property
    def usable(self) -> bool:
        """Whether training would take the row, as far as its picture goes."""
        return self.finding.problem is None


@dataclass(frozen=True)
class FactsDataset(Rows[Facts]):
    """Looks at the rows of a manifest; rows that the source itself refuses are not read."""

    manifest: Manifest
    decode: DecodeAdapter

    def __len__(self) -> int:
        return len(self.manifest)

    def opened(self, index: int) -> Callable[[], Facts]:
        """Read a row's file; the result looks at it."""
        record = self.manifest[index]
        if record.problem is not None:
            return partial(Facts, Finding(index, problem=record.problem))
        try:
            data = self.manifest.source.read(record)
        except ImageError as error:
            return partial(Facts, Finding(index, problem=error.reason))
        return partial(look_at, data, index, record.key, self.decode)


def scan(manifest: Manifest, decode: DecodeAdapter, workers: int = 0) -> Iterator[Facts]:
    """Yield what is to be seen of every row, in order."""
    return samples(FactsDataset(manifest, decode), workers)


def look_at(data: bytes, index: int, key: str, decode: DecodeAdapter) -> Facts:
    """The facts of one file's bytes."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        decoded = decode.decode(data, key)
    except ImageError as error:
        return Facts(Finding(index, digest, problem=error.reason), True, len(data))
    form, mode = _stored(data)
    luma = thumbnail(decoded.pixels)
    return Facts(
        finding=Finding(index, digest, decoded.repairs),
        read=True,
        size=len(data),
        form=form,
        mode=mode,
        height=decoded.pixels.shape[1],
        width=decoded.pixels.shape[2],
        digest=pixel_digest(decoded.pixels),
        hash=difference_hash(luma).tobytes(),
        luma=luma.round().byte().numpy().tobytes(),
        blank=is_blank(luma),
    )


def expected_form(key: str) -> str:
    """The format that a name's ending promises, as Pillow calls it; empty where the ending says nothing."""
    Image.init()
    form = Image.EXTENSION.get(PurePosixPath(key).suffix.lower(), "")
    return _ALIKE.get(form, form)


def hashes(facts: Sequence[Facts]) -> npt.NDArray[np.uint8]:
    """The perceptual hashes of usable rows, uint8 [N, 16]."""
    return np.frombuffer(b"".join(fact.hash for fact in facts), np.uint8).reshape(len(facts), HASH_BITS // 8)


def lumas(facts: Sequence[Facts]) -> npt.NDArray[np.uint8]:
    """The thumbnails of usable rows, uint8 [N, 32, 32]."""
    return np.frombuffer(b"".join(fact.luma for fact in facts), np.uint8).reshape(len(facts), SIDE, SIDE)


def _stored(data: bytes) -> tuple[str, str]:
    """Format and mode in the header of a file that has been decoded."""
    formats = [name for name in (*READABLE, "HEIF") if name in Image.OPEN]
    with without_warnings, Image.open(io.BytesIO(data), formats=formats) as image:
        return _ALIKE.get(image.format or "", image.format or ""), image.mode
