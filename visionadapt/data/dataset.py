"""Read one row of a manifest: decode its file once, and augment and resize every view of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from visionadapt.core.records import Manifest, Record, Source
from visionadapt.errors import ImageError
from visionadapt.images import Augmentation, Preprocessing, seed_for
from visionadapt.images.formats import extra_decoder

PLAIN = 0
"""The view without augmentation; views 1, 2, … are augmented ones."""

Row = TypeVar("Row")


class Contents(Protocol):
    """SHA-256 of objects by their identities, both as 64 hex digits."""

    def get(self, identity: str) -> str | None:
        """Return the SHA-256 of an object's bytes; None where it is not known."""


Remark = tuple[Sequence[str], str | None]
"""The repairs and the problem of a file: its finding without the place."""


@dataclass(frozen=True)
class Finding:
    """The outcome of reading one row.

    Attributes:
        index: the row's place in the manifest.
        sha256: hex digest of the file's bytes; empty where they could not be read.
        repairs: what a naive reader would have got wrong, and how it was corrected.
        problem: why the row is rejected; None for all others.
        lasting: whether the file itself is at fault, so that reading it again is pointless.
        decoder: the extra library that decodes the file, with its version; empty for Pillow's and simplejpeg's formats.
    """

    index: int
    sha256: str = ""
    repairs: tuple[str, ...] = ()
    problem: str | None = None
    lasting: bool = True
    decoder: str = ""


@dataclass(frozen=True)
class Sample:
    """One row, ready for a batch: the requested views, uint8 [V, 3, S, S], and the content identity of each.

    `pixels` is None where no view is requested or the row is rejected.
    """

    finding: Finding
    views: tuple[int, ...] = ()
    identities: tuple[bytes, ...] = ()
    pixels: Tensor | None = None


class Rows(Dataset[Row], ABC):
    """Rows whose files are opened one after another, and decoded in several threads where decoding is thread-safe."""

    @property
    def one_by_one(self) -> bool:
        """Whether only one row may be decoded at a time."""
        return False

    @property
    def reads_ahead(self) -> int:
        """How many rows are worth reading at once, since they wait for a store; 0 where they do not."""
        return 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def opened(self, index: int) -> Callable[[], Row]:
        """Read a row's file, and return a function that does the rest in any thread."""

    def name(self, index: int) -> str:
        """Return what a row is called in messages."""
        return f"row {index}"

    def __getitem__(self, index: int) -> Row:
        return self.opened(index)()


@dataclass(frozen=True)
class ImageDataset(Rows[Sample]):
    """The rows of a manifest as samples; each file is decoded once for all views.

    Attributes:
        manifest: the rows.
        prepare: decoding and resizing.
        augment: the augmentation of all views but `PLAIN`, between decoding and resizing.
        views: the requested views of every row.
        seed: determines, with view and key, every random draw.
        known: identities whose pixels are not needed, since their features are cached.
        remarks: what earlier decoding found in files with repairs or a problem, by `remark_name`.
        contents: SHA-256 of objects in a store by `identity_of`, which need not be read again to know it.
        augment_name: stands for the augmentation in identities; empty for its `repr`, which may differ in another
            process where the pipeline is a custom one.
    """

    manifest: Manifest
    prepare: Preprocessing
    augment: Augmentation
    views: tuple[int, ...] = (PLAIN,)
    seed: int = 0
    known: Container[bytes] = ()
    remarks: Mapping[str, Remark] = field(default_factory=dict)
    augment_name: str = ""
    contents: Contents | None = None

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def one_by_one(self) -> bool:
        """Whether the pipeline is a custom one, which draws from random states that threads share."""
        return self.augment.is_own

    @property
    def reads_ahead(self) -> int:
        """How many rows are worth reading at once."""
        return reads_ahead(self.manifest)

    def name(self, index: int) -> str:
        """Return a row's key."""
        return self.manifest.key(index)

    def opened(self, index: int) -> Callable[[], Sample]:
        """Read a row's file, and return a function that decodes it, unless its features are cached."""
        record = self.manifest[index]
        if record.problem is not None:
            return partial(Sample, Finding(index, problem=record.problem))
        unread = self._unread(index, record)
        if unread is not None:
            return partial(Sample, unread)
        try:
            data = self.manifest.source.read(record)
        except ImageError as error:
            return partial(Sample, Finding(index, problem=error.reason, lasting=error.lasting))
        return partial(self._sample, index, record.key, data)

    def _sample(self, index: int, key: str, data: bytes) -> Sample:
        finding = self._found(index, data)
        try:
            known = self._known(finding)
            return Sample(known) if known is not None else self._decoded(finding, key, data)
        except ImageError as error:
            return Sample(replace(finding, problem=error.reason, lasting=error.lasting))

    def is_known(self, index: int) -> bool:
        """Read a row's file, and return whether it need not be decoded; a row that cannot be read need not either."""
        record = self.manifest[index]
        if self._unread(index, record) is not None:
            return True
        try:
            data = b"" if record.problem is not None else self.manifest.source.read(record)
        except ImageError:
            data = b""
        return not data or self._known(self._found(index, data)) is not None

    def identity_of(self, index: int) -> str | None:
        """Return what identifies the bytes of a row without reading them; None where nothing does."""
        return _identity_of(self.manifest.source, self.manifest[index])

    def _unread(self, index: int, record: Record) -> Finding | None:
        """The finding of a row that is known and needs neither be read nor decoded; None for all others."""
        if self.contents is None:
            return None
        identity = _identity_of(self.manifest.source, record)
        sha256 = None if identity is None else self.contents.get(identity)
        return None if sha256 is None else self._known(Finding(index, sha256))

    def _found(self, index: int, data: bytes) -> Finding:
        return Finding(index, hashlib.sha256(data).hexdigest(), decoder=extra_decoder(data))

    def _known(self, finding: Finding) -> Finding | None:
        """The finding of a file that need not be decoded; None for one that must be."""
        names = self.identities(finding)
        repairs, problem = self.remarks.get(remark_name(names), ((), None))
        if problem is None and not all(name in self.known for name in names):
            return None
        return replace(finding, repairs=tuple(repairs), problem=problem)

    def _decoded(self, finding: Finding, key: str, data: bytes) -> Sample:
        decoded = self.prepare.decoded(data, key)
        names = zip(self.views, self.identities(finding), strict=True)
        needed = {view: name for view, name in names if name not in self.known}
        pixels = [self._pixels(decoded.pixels, key, view) for view in needed]
        found = replace(finding, repairs=decoded.repairs)
        return Sample(found, tuple(needed), tuple(needed.values()), torch.stack(pixels) if pixels else None)

    def identities(self, finding: Finding) -> tuple[bytes, ...]:
        """Return the content identity of each view of a row that has been read."""
        key = self.manifest.key(finding.index)
        return tuple(self._identity(finding, key, view) for view in self.views)

    def _identity(self, finding: Finding, key: str, view: int) -> bytes:
        """32 bytes that identify a file's content, its extra decoder, and every random draw of an augmented view."""
        name = self.augment_name or repr(self.augment)
        drawn = "" if view == PLAIN else f"{name}\x1f{self.seed}\x1f{view}\x1f{key}"
        text = "\x1f".join((finding.sha256, drawn, *([finding.decoder] if finding.decoder else [])))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def _pixels(self, image: Tensor, key: str, view: int) -> Tensor:
        if view != PLAIN:
            image = self.augment(image, seed_for(self.seed, view, key))
        return self.prepare.after_decode(image)


def reads_ahead(manifest: Manifest) -> int:
    """Return how many rows of a manifest are worth reading at once; 0 where its source is on this machine."""
    return int(getattr(manifest.source, "reads_ahead", 0))


def _identity_of(source: Source, record: Record) -> str | None:
    """What identifies a row's bytes, as `RemoteSource` says; without its slow check of instances, for every row."""
    identity_of: Callable[[Record], str | None] | None = getattr(source, "identity_of", None)
    return None if identity_of is None else identity_of(record)


def remark_name(identities: Sequence[bytes]) -> str:
    """Return the name under which a remark on a file is stored: a hash of the identities of its views."""
    return hashlib.blake2b(b"".join(identities), digest_size=16).hexdigest()
