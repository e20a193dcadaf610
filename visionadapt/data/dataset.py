"""Read one row of a manifest: decode its file once, and augment and resize every view of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from visionadapt.core.records import Manifest
from visionadapt.errors import ImageError
from visionadapt.images import Augmentation, Preprocessing, seed_for

PLAIN = 0
"""The view without augmentation; views 1, 2, … are augmented ones."""

Row = TypeVar("Row")


Remark = tuple[Sequence[str], str | None]
"""The repairs and the problem of a file: what its finding says beside its place."""


@dataclass(frozen=True)
class Finding:
    """What came of one row.

    Attributes:
        index: its place in the manifest.
        sha256: hex digest of the file's bytes; empty where they could not be read.
        repairs: what a naive reader would have got wrong, and what was done about it.
        problem: why the row is rejected; None for all others.
        lasting: whether that is the file's own fault, so that it need not be tried again.
    """

    index: int
    sha256: str = ""
    repairs: tuple[str, ...] = ()
    problem: str | None = None
    lasting: bool = True


@dataclass(frozen=True)
class Sample:
    """One row, ready for a batch: uint8 [V, 3, S, S], the views asked for, and the content identity of each.

    `pixels` is None where no view is wanted or the row is rejected. It is one tensor, since each costs a file handle
    on its way from a worker.
    """

    finding: Finding
    views: tuple[int, ...] = ()
    identities: tuple[bytes, ...] = ()
    pixels: Tensor | None = None


class Rows(Dataset[Row], ABC):
    """Rows whose files are opened one after another, and decoded in several threads where the decoding allows it."""

    @property
    def one_by_one(self) -> bool:
        """Whether only one may be decoded at a time."""
        return False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def opened(self, index: int) -> Callable[[], Row]:
        """Read a row's file; what is left to do with it is done by the result, in any thread."""

    def __getitem__(self, index: int) -> Row:
        return self.opened(index)()


@dataclass(frozen=True)
class ImageDataset(Rows[Sample]):
    """Reads rows of a manifest; every view of a row comes from one decoding.

    Attributes:
        manifest: the rows.
        prepare: decoding and resizing.
        augment: what the views other than `PLAIN` go through, between the two.
        views: which views are wanted of every row.
        seed: with view and key it settles every random draw.
        known: identities of pixels that are not wanted, since what follows from them is kept already.
        remarks: what decoding found out before about rows that are not simply right, by `remark_name`.
        augment_name: stands for the augmentation in identities; empty for its `repr`, which another process may read
            otherwise where the pipeline is one of the user's own.
    """

    manifest: Manifest
    prepare: Preprocessing
    augment: Augmentation
    views: tuple[int, ...] = (PLAIN,)
    seed: int = 0
    known: Container[bytes] = ()
    remarks: Mapping[str, Remark] = field(default_factory=dict)
    augment_name: str = ""

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def one_by_one(self) -> bool:
        """Whether the pipeline is one of the user's own: what it draws comes from random states that threads share."""
        return self.augment.is_own

    def opened(self, index: int) -> Callable[[], Sample]:
        """Read a row's file; the result decodes it, unless what follows is kept already."""
        record = self.manifest[index]
        if record.problem is not None:
            return partial(Sample, Finding(index, problem=record.problem))
        try:
            data = self.manifest.source.read(record)
        except ImageError as error:
            return partial(Sample, Finding(index, problem=error.reason, lasting=error.lasting))
        return partial(self._sample, index, record.key, data)

    def _sample(self, index: int, key: str, data: bytes) -> Sample:
        digest = hashlib.sha256(data).hexdigest()
        try:
            kept = self._kept(index, key, digest)
            return Sample(kept) if kept is not None else self._decoded(index, key, digest, data)
        except ImageError as error:
            return Sample(Finding(index, digest, problem=error.reason, lasting=error.lasting))

    def _kept(self, index: int, key: str, digest: str) -> Finding | None:
        """What is known of a file without decoding it; None where it must be decoded."""
        names = self._identities(digest, key)
        repairs, problem = self.remarks.get(remark_name(names), ((), None))
        if problem is None and not all(name in self.known for name in names):
            return None
        return Finding(index, digest, tuple(repairs), problem)

    def _decoded(self, index: int, key: str, digest: str, data: bytes) -> Sample:
        decoded = self.prepare.decoded(data, key)
        names = zip(self.views, self._identities(digest, key), strict=True)
        wanted = {view: name for view, name in names if name not in self.known}
        pixels = [self._pixels(decoded.pixels, key, view) for view in wanted]
        finding = Finding(index, digest, decoded.repairs)
        return Sample(finding, tuple(wanted), tuple(wanted.values()), torch.stack(pixels) if pixels else None)

    def identities(self, finding: Finding) -> tuple[bytes, ...]:
        """The content identity of each view of a row that has been read."""
        return self._identities(finding.sha256, self.manifest.key(finding.index))

    def _identities(self, digest: str, key: str) -> tuple[bytes, ...]:
        return tuple(self._identity(digest, key, view) for view in self.views)

    def _identity(self, digest: str, key: str, view: int) -> bytes:
        """32 bytes that stand for the file's bytes and, of an augmented view, for everything that is random in it."""
        name = self.augment_name or repr(self.augment)
        drawn = "" if view == PLAIN else f"{name}\x1f{self.seed}\x1f{view}\x1f{key}"
        return hashlib.blake2b(f"{digest}\x1f{drawn}".encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def _pixels(self, picture: Tensor, key: str, view: int) -> Tensor:
        if view != PLAIN:
            picture = self.augment(picture, seed_for(self.seed, view, key))
        return self.prepare.after_decode(picture)


def remark_name(identities: Sequence[bytes]) -> str:
    """What a remark on a file is kept under: it stands for the bytes, and for what is random in the views."""
    return hashlib.blake2b(b"".join(identities), digest_size=16).hexdigest()
