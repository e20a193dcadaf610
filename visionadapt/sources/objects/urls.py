"""URLs into object storage: `s3://bucket/photos`, `gs://…` and `az://…`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from visionadapt.errors import SourceError

_URL = re.compile(r"(s3|gs|az)://(?P<bucket>[^/?#@\s]*)(?P<path>/.*)?", re.DOTALL)


@dataclass(frozen=True)
class ObjectUrl:
    """A place in a bucket.

    Attributes:
        bucket: the bucket, with its scheme: `s3://photos`.
        path: of an object, or of a folder; without slashes at its ends.
    """

    bucket: str
    path: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.path}" if self.path else self.bucket

    def below(self, name: str) -> str:
        """Return the path in the bucket of what has this name below the place."""
        return f"{self.path}/{name}" if self.path else name


def is_object_url(text: object) -> bool:
    """Whether a text is meant as a URL into object storage."""
    return isinstance(text, str) and _URL.match(text) is not None


def object_url(text: str) -> ObjectUrl:
    """Read a URL; raise SourceError where it is none, or has no bucket, or may hold a password or a query."""
    match = _URL.fullmatch(text.strip())
    if match is None or not match["bucket"]:
        raise SourceError(
            f"{text!r} is no URL into object storage: give s3://bucket/folder, gs://bucket/folder or "
            "az://container/folder, without user, password and query"
        )
    return ObjectUrl(f"{match[1]}://{match['bucket']}", (match["path"] or "").strip("/"))
