"""`NamedSource`: unlabelled images given by name, as files, folders and URLs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import Record
from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import check_size, flag, needing, several
from visionadapt.sources.base import BaseSource
from visionadapt.sources.files import FileSource
from visionadapt.sources.keys import UniqueKeys, key_of
from visionadapt.sources.web.urls import host_names, shown

if TYPE_CHECKING:
    from visionadapt.sources.web.client import HttpClient


def is_url(name: str) -> bool:
    """Whether a name is an http or https URL, and no path."""
    return name.lower().startswith(("http://", "https://"))


@dataclass(frozen=True, repr=False)
class NamedSource(BaseSource):
    """Unlabelled images: each of `names` is an http or https URL, or a file or folder as in `FileSource`.

    Only `hosts` are contacted, at public addresses unless `private` is set; redirects are checked again. A file or URL
    that cannot be read is a row whose bytes are not available. Keys are the paths as they were given, and URLs without
    their query, which may hold secrets.

    Args:
        names: URLs, files and folders.
        hosts: hosts that may be contacted, as `host` or `host:port`.
        private: whether addresses that only this machine or its network reaches are allowed.
        timeout, deadline: seconds to wait for a connection and each part of an answer; for a complete answer.
        max_bytes: larger images are refused.

    Raises:
        SourceError: an argument is invalid, or the libraries for HTTP are missing.
    """

    names: Sequence[str]
    _: KW_ONLY
    hosts: Sequence[str] = ()
    private: bool = False
    timeout: float = 30.0
    deadline: float = 120.0
    max_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        self._set(names=several(self.names), hosts=host_names(self.hosts), private=flag("private", self.private))
        check_size("max_bytes", self.max_bytes)
        with needing("an image's URL", "requests and tenacity", "http"):
            import requests  # noqa: F401
            import tenacity  # noqa: F401

    def __str__(self) -> str:
        return ", ".join(shown(name) if is_url(name) else name for name in self.names)

    @property
    def classes(self) -> tuple[str, ...]:
        """No classes: the images are unlabelled."""
        return ()

    def __iter__(self) -> Iterator[Record]:
        taken: set[str] = set()
        keys = UniqueKeys()
        for web, group in itertools.groupby(self.names, is_url):
            names = tuple(group)
            urls = (Record(shown(url), location=url) for url in names)
            for record in urls if web else FileSource(names, self.max_bytes, strict=False):
                location = record.location or record.key
                if location not in taken:
                    taken.add(location)
                    key, _ = keys.own(record.key if web else key_of(location))
                    yield dataclasses.replace(record, key=key, location=location)

    def read(self, record: Record) -> bytes:
        """Return the bytes of a file or at a URL; raise ImageError where they are not available within the limits."""
        location = record.location or record.key
        if not is_url(location):
            return self._files.read(record)
        from visionadapt.sources.web.client import image_bytes

        try:
            return image_bytes(self._client, location, record.key, self.max_bytes)
        except SourceError as error:
            raise ImageError(record.key, str(error)) from None

    def version_of(self, record: Record) -> str | None:
        """Return a file's size and times, or a hash of a URL."""
        location = record.location or record.key
        return f"{stable_hash(location):016x}" if is_url(location) else self._files.version_of(record)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in super().__getstate__().items() if name != "_client"}

    @cached_property
    def _files(self) -> FileSource:
        return FileSource((), self.max_bytes, strict=False)

    @cached_property
    def _client(self) -> HttpClient:
        from visionadapt.sources.web.client import HttpClient, Patience

        return HttpClient(tuple(self.hosts), self.private, Patience(self.timeout, self.deadline, retries=2))
