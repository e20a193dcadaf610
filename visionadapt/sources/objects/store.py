"""`Bucket`: list and read the objects of a bucket through obstore, with retries and with errors of one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.arguments import needing
from visionadapt.sources.objects.failures import CHANGED, failure_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Result = TypeVar("Result")

_PAGE = 1000
_PART = 16 << 20
"""Bytes of a large object that are sent or received at once."""


class Listed(NamedTuple):
    """An object: its path in the bucket, its number of bytes, and its ETag (empty where there is none)."""

    path: str
    size: int
    etag: str


@dataclass(frozen=True)
class Bucket:
    """A bucket, opened with the credentials that the provider's own chain finds, none of which is kept here.

    Connections belong to the process and are shared by its threads. A forked process has none and cannot open any:
    obstore's threads are not forked.

    Attributes:
        url: of the bucket, such as `s3://photos`.
        retries: how many times a request is repeated if the store is busy or unreachable, or stops in the middle.
        timeout: seconds that a request may take.
        wait, max_wait: seconds before the first repetition, twice as many before each next one; and the most.
    """

    url: str
    retries: int = 5
    timeout: float = 30.0
    wait: float = 0.2
    max_wait: float = 15.0

    def listed(self, folder: str) -> Iterator[Listed]:
        """Yield the objects below a folder of the bucket, a page at a time; the order is the store's.

        Raises:
            SourceError: the bucket cannot be listed.
        """
        prefix = f"{folder}/" if folder else ""
        pages = self._tried(lambda: iter(self._store.list(prefix or None, chunk_size=_PAGE)))
        before = ""
        while True:
            page = self._tried(lambda: next(pages, None))
            if page is None:
                return
            if page and page[0]["path"] == before:
                raise SourceError(f"{self.url} lists the same objects again and again; the store is broken")
            before = page[0]["path"] if page else ""
            for item in page:
                if not item["path"].startswith(prefix):
                    raise SourceError(f"{self.url} lists objects that are not in {prefix}; the store is broken")
                yield Listed(item["path"], item["size"], item["e_tag"] or "")

    def read(self, path: str, name: str, max_bytes: int, etag: str = "") -> bytes:
        """Return the bytes of an object.

        Args:
            path: in the bucket.
            name: what errors call it.
            max_bytes: a larger one is refused before it is read.
            etag: the object must still have this one; empty for any.

        Raises:
            ImageError: it is missing, too large, has changed, or does not come although the store answers.
            SourceError: the store does not answer, or does not accept the credentials.
        """
        return self._read(path, name, etag, None, max_bytes)

    def read_range(self, path: str, name: str, start: int, stop: int, etag: str = "") -> bytes:
        """Return the bytes of an object from `start` to before `stop`; raise as `read` does."""
        return self._read(path, name, etag, (start, stop), stop - start)

    def _read(self, path: str, name: str, etag: str, part: tuple[int, int] | None, max_bytes: int) -> bytes:
        options: dict[str, Any] = {"if_match": etag} if etag else {}
        if part is not None:
            options["range"] = part

        with self._told(name):
            found = self._store.get(path, options=cast(Any, options))
            first, last = found.range
            if last - first > max_bytes:
                raise ImageError(name, f"has {last - first:,} bytes, more than the limit max_bytes={max_bytes:,}")
            data = bytes(found.bytes())  # a body that stops is requested again from there, with the same ETag
            if len(data) != last - first:
                raise ImageError(name, "stops before its end", lasting=False)
        return data

    def parts(self, path: str, name: str, etag: str, size: int) -> Iterator[Any]:
        """Yield the bytes of a large object in pieces; raise as `read` does, also where there are fewer or more."""
        options: dict[str, Any] = {"if_match": etag} if etag else {}
        done = 0
        with self._told(name):
            for part in self._store.get(path, options=cast(Any, options)).stream(_PART):
                done += len(part)
                yield part
            if done != size:
                raise ImageError(name, "stops before its end", lasting=False)

    def put(self, path: str, file: Path, name: str) -> None:
        """Store a file under a path, in one step however large it is; raise as `read` does."""
        with self._told(name):
            self._store.put(path, file, chunk_size=max(_PART, file.stat().st_size // 9000))

    def delete(self, path: str, name: str) -> None:
        """Remove an object; raise as `read` does."""
        with self._told(name):
            self._store.delete(path)

    def head(self, path: str, name: str) -> Listed:
        """Return what the store says of one object; raise as `read` does."""
        with self._told(name):
            found = self._store.head(path)
        return Listed(path, found["size"], found["e_tag"] or "")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn what fails in a request for one object into an ImageError or a SourceError.

        The store is asked once more where its answer does not say whether the whole bucket is out of reach.
        """
        try:
            yield
            return
        except (ImageError, SourceError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001 - obstore raises Rust's errors under several bases
            failure = failure_of(error, self.url, name)
        if isinstance(failure, ImageError) and not failure.lasting and failure.reason != CHANGED:
            self._tried(lambda: next(iter(self._store.list(chunk_size=1)), None))  # raises if nothing answers
        raise failure

    def _tried(self, request: Callable[[], Result]) -> Result:
        """Return what a request about the whole bucket gives; raise SourceError where it fails."""
        try:
            return request()
        except Exception as error:  # noqa: BLE001 - as above
            failure = failure_of(error, self.url, self.url)
        raise failure if isinstance(failure, SourceError) else SourceError(f"{self.url}: {failure.reason}")

    @property
    def _store(self) -> ObjectStore:
        try:
            return _opened(self, os.getpid(), _variables())
        except (SourceError, ImageError):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            failure = failure_of(error, self.url, self.url)
        raise failure


def _variables() -> int:
    """A hash of the environment variables that the stores read: a bucket is opened anew where they change."""
    return hash(frozenset(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_", "AZURE_"))))


@lru_cache(maxsize=16)
def _opened(bucket: Bucket, process: int, variables: int) -> ObjectStore:
    """Open a bucket, once in each process."""
    with needing(f"{bucket.url}: object storage", "obstore", "cloud"):
        from obstore.store import from_url
    plain = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=bucket.timeout),
            "connect_timeout": timedelta(seconds=min(bucket.timeout, 10.0)),
            "allow_http": plain.startswith("http://") and bucket.url.startswith("s3:"),
        },
        "retry_config": {
            "max_retries": bucket.retries,
            "backoff": {
                "init_backoff": timedelta(seconds=bucket.wait),
                "max_backoff": timedelta(seconds=bucket.max_wait),
            },
            "retry_timeout": timedelta(seconds=max(bucket.timeout * 4, bucket.max_wait * bucket.retries)),
        },
    }
    profile = _profile() if bucket.url.startswith("s3:") else None
    if profile is not None:
        options["credential_provider"] = profile
    return from_url(bucket.url, **options)


def _profile() -> Any:
    """Return boto3's chain of credentials, which knows profiles and single sign-on; None where variables hold a key,
    boto3 is not installed, or its chain ends without one."""
    if "AWS_ACCESS_KEY_ID" in os.environ or os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in {"1", "true"}:
        return None
    with suppress(ImportError, ValueError):
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    return None
