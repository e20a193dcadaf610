"""Local copies of single objects, such as tables and weights: fetched once per version; and files put into a bucket."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from visionadapt.errors import ImageError, RunError, SourceError
from visionadapt.sources.objects.store import Bucket
from visionadapt.sources.objects.urls import is_object_url, object_url
from visionadapt.system.cache_folder import default_folder
from visionadapt.system.storage import replacing

FOLDER = "objects"
"""Where the copies are in the user's cache folder."""
_ODD = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class ObjectVersion:
    """An object as it was when it was first asked for.

    Attributes:
        url: such as `s3://bucket/labels.csv`.
        size: number of bytes.
        etag: empty where the store has none.
    """

    url: str
    size: int
    etag: str

    def here(self) -> Path:
        """Return a local copy of this version, which is fetched unless it is in the user's cache folder already.

        Raises:
            SourceError: it does not come, or the object has changed; or the disk is full.
        """
        place = object_url(self.url)
        name = _ODD.sub("_", place.path.rpartition("/")[2])[-80:]
        folder = (
            default_folder() / FOLDER / hashlib.sha256(str(place).encode("utf-8", "surrogatepass")).hexdigest()[:24]
        )
        path = folder / f"{hashlib.sha256(f'{self.etag} {self.size}'.encode()).hexdigest()[:24]}-{name}"
        if self.etag and path.is_file() and path.stat().st_size == self.size:
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                for part in Bucket(place.bucket).parts(place.path, self.url, self.etag, self.size):
                    file.write(part)
        except ImageError as error:
            raise SourceError(str(error)) from error
        except (OSError, RunError) as error:
            raise SourceError(f"{self.url} cannot be copied into {folder} ({error}); free some space") from error
        for other in folder.iterdir():  # of earlier versions; who has one open keeps it
            if other.name.endswith(name) and other != path:
                with suppress(OSError):
                    other.unlink()
        return path


def object_version(url: str) -> ObjectVersion:
    """Return what the store says of an object.

    Raises:
        SourceError: it is missing, or the store does not answer or does not accept the credentials.
    """
    place = object_url(url)
    if not place.path:
        raise SourceError(f"{place} is a bucket; name an object in it")
    try:
        found = Bucket(place.bucket).head(place.path, str(place))
    except ImageError as error:
        raise SourceError(str(error)) from error
    return ObjectVersion(str(place), found.size, found.etag)


def local_file(text: str | Path) -> str | Path:
    """Return the path of a local copy of the object that a URL such as `s3://…` names; any other text is unchanged."""
    return object_version(str(text)).here() if is_object_url(str(text)) else text


def exists(text: str) -> bool:
    """Whether there is a file at a path, or an object at a URL."""
    if not is_object_url(text):
        return Path(text).exists()
    place = object_url(text)
    try:
        Bucket(place.bucket).head(place.path, text)
    except ImageError as error:
        if error.lasting:
            return False
        raise SourceError(str(error)) from error
    return True


def put(path: Path, url: str) -> None:
    """Store a file as an object, which appears in one step, or replaces another one.

    Raises:
        RunError: it is not stored; what was there before still is.
    """
    place = object_url(url)
    try:
        Bucket(place.bucket).put(place.path, path, url)
    except (ImageError, SourceError) as error:
        raise RunError(f"{error}; {url} is not written") from error


@contextmanager
def writable(out: str) -> Iterator[Path]:
    """Provide the path to write a file to: `out` itself, or for a URL one whose file is put there at the end."""
    if not is_object_url(out):
        yield Path(out)
        return
    with TemporaryDirectory(prefix="visionadapt-") as folder:
        path = Path(folder) / object_url(out).path.rpartition("/")[2]
        yield path
        put(path, out)
