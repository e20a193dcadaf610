"""`Below`: the objects below a place in a bucket, listed once, and read by their names below it."""

from __future__ import annotations

import hashlib
from functools import cached_property

from visionadapt.core.naming import stable_hash
from visionadapt.errors import ImageError
from visionadapt.sources.objects.failures import MISSING
from visionadapt.sources.objects.listing import ObjectList
from visionadapt.sources.objects.store import Bucket
from visionadapt.sources.objects.urls import object_url
from visionadapt.sources.walk import suffix_of

READS_AHEAD = 32
"""Objects requested at once: with 20 ms per request, 1,600 per second."""


class Below:
    """The objects below a place.

    Args:
        root: URL of the place.
        max_bytes: larger objects are refused.
        timeout, retries: as in `Bucket`.
    """

    def __init__(self, root: str, max_bytes: int, timeout: float = 30.0, retries: int = 5) -> None:
        self.root, self.max_bytes = object_url(root), max_bytes
        self.bucket = Bucket(self.root.bucket, retries, timeout)
        self.reads_ahead = READS_AHEAD

    @cached_property
    def listing(self) -> ObjectList:
        """The objects, packed; those that only stand for a folder are left out."""
        listing, start = ObjectList(), len(self.root.path) + 1 if self.root.path else 0
        for item in self.bucket.listed(self.root.path):
            name = item.path[start:]
            if name and (item.size or suffix_of(name)):
                listing.append(name, item.size, item.etag)
        return listing.sort()

    def problem(self, name: str) -> str | None:
        """Return why an object cannot be read, as far as the listing tells; None where it can."""
        row = self.listing.find(name)
        if row is None:
            return MISSING
        size = self.listing.size(row)
        return (
            f"has {size:,} bytes, more than the limit max_bytes={self.max_bytes:,}" if size > self.max_bytes else None
        )

    def read(self, name: str, key: str) -> bytes:
        """Return the bytes of an object with this name below the place; raise as `Bucket.read` does."""
        row = self.listing.find(name)
        if row is None:
            raise ImageError(key, MISSING)
        return self.bucket.read(self.root.below(name), key, self.max_bytes, self.listing.etag(row))

    def version(self, name: str) -> str | None:
        """Return an object's ETag and size as the bucket listed them; None where there is no such object."""
        row = self.listing.find(name)
        return None if row is None else f"{stable_hash(self.listing.etag(row), self.listing.size(row)):016x}"

    def identity(self, name: str) -> str | None:
        """Return a hash, 64 hex digits, of an object's URL, ETag and size; None where it has no ETag."""
        row = self.listing.find(name)
        if row is None or not self.listing.etag(row):
            return None
        text = "\x1f".join((f"{self.root}/{name}", self.listing.etag(row), str(self.listing.size(row))))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
