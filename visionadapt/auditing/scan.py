"""Read every file once: its format, the size of its image, and its fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionadapt.auditing.fingerprints import (
    HASH_BITS,
    SIDE,
    difference_hash,
    is_blank,
    luma_of,
    pixel_digest,
    reduced,
    thumbnail,
)
from visionadapt.auditing.quality import Quality, quality
from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding, Rows, reads_ahead
from visionadapt.data.loading import samples
from visionadapt.errors import ImageError
from visionadapt.images import DecodeAdapter, picture_header
from visionadapt.images.formats import extra_decoder

_ALIKE = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What was read of a row's file.

    Attributes:
        finding: SHA-256, repairs, and why the row cannot be used.
        read: whether the bytes could be read.
        size: size of the file in bytes.
        form: format by content, as Pillow names it; empty if unknown.
        mode: Pillow mode of the stored image.
        height, width: size of the upright image in pixels.
        digest: digest of the upright pixels.
        hash, mirrored: perceptual hashes of the image and of its mirror image, 16 bytes each.
        luma: thumbnail, 64 × 64 bytes.
        blank: whether the image has a single colour.
        quality: blur, brightness and information; None if the image cannot be read.
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
    mirrored: bytes = b""
    luma: bytes = b""
    blank: bool = False
    quality: Quality | None = None

    @property
    def usable(self) -> bool:
        """Whether training can use the image."""
        return self.finding.problem is None


@dataclass(frozen=True)
class FileScan(Rows[FileFacts]):
    """Scans the rows of a manifest; rows that the source itself rejects are not read."""

    manifest: Manifest
    decode: DecodeAdapter

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def reads_ahead(self) -> int:
        """How many rows are worth reading at once."""
        return reads_ahead(self.manifest)

    def name(self, index: int) -> str:
        """Return a row's key."""
        return self.manifest.key(index)

    def opened(self, index: int) -> Callable[[], FileFacts]:
        """Read a row's file; the returned function inspects it."""
        record = self.manifest[index]
        if record.problem is not None:
            return partial(FileFacts, Finding(index, problem=record.problem))
        try:
            data = self.manifest.source.read(record)
        except ImageError as error:
            return partial(FileFacts, Finding(index, problem=error.reason))
        return partial(inspect, data, index, record.key, self.decode)


def scan(manifest: Manifest, decode: DecodeAdapter, workers: int = 0) -> Iterator[FileFacts]:
    """Yield the facts of every row, in order."""
    return samples(FileScan(manifest, decode), workers)


def inspect(data: bytes, index: int, key: str, decode: DecodeAdapter) -> FileFacts:
    """Return the facts of a file from its bytes."""
    found = Finding(index, hashlib.sha256(data).hexdigest(), decoder=extra_decoder(data))
    try:
        decoded = decode.decode(data, key)
    except ImageError as error:
        return FileFacts(replace(found, problem=error.reason), True, len(data))
    form, mode = _stored(data)
    small = reduced(decoded.pixels)
    luma = thumbnail(small)
    return FileFacts(
        finding=replace(found, repairs=decoded.repairs),
        read=True,
        size=len(data),
        form=form,
        mode=mode,
        height=decoded.pixels.shape[1],
        width=decoded.pixels.shape[2],
        digest=pixel_digest(decoded.pixels),
        hash=difference_hash(luma).tobytes(),
        mirrored=difference_hash(luma.flip(1)).tobytes(),
        luma=luma.round().byte().numpy().tobytes(),
        blank=is_blank(luma),
        quality=quality(luma_of(small)),
    )


def expected_form(key: str) -> str:
    """Return the format of a file extension, as Pillow names it; empty for an unknown one."""
    Image.init()
    form = Image.EXTENSION.get(PurePosixPath(key).suffix.lower(), "")
    return _ALIKE.get(form, form)


def hashes(files: Sequence[FileFacts]) -> npt.NDArray[np.uint8]:
    """Perceptual hashes of usable rows and of their mirror images, uint8 [2, N, 16]."""
    every = b"".join([*(file.hash for file in files), *(file.mirrored for file in files)])
    return np.frombuffer(every, np.uint8).reshape(2, len(files), HASH_BITS // 8)


def lumas(files: Sequence[FileFacts]) -> npt.NDArray[np.uint8]:
    """Thumbnails of usable rows, uint8 [N, 64, 64]."""
    return np.frombuffer(b"".join(file.luma for file in files), np.uint8).reshape(len(files), SIDE, SIDE)


def _stored(data: bytes) -> tuple[str, str]:
    """Format and mode from the header of a file that can be decoded."""
    header = picture_header(data)
    return (_ALIKE.get(header.format, header.format), header.mode) if header else ("", "")
