"""The image field of a JSON row: a URL, a data URI, or base64; and the key that names the row."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Literal, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urldefrag, urljoin, urlsplit

from visionadapt.core.naming import stable_hash
from visionadapt.sources.keys import plain_key
from visionadapt.sources.tables.row import TableRow
from visionadapt.sources.web.urls import origin, shown

Encoding = Literal["url", "base64"]

_DATA_URI = re.compile(r"data:[^,]*?(;\s*base64)?\s*,", re.IGNORECASE)
_URL_ALPHABET = str.maketrans("-_", "+/")


class ImageReference(NamedTuple):
    """Where a row's image is.

    Attributes:
        key: the row's key.
        text: the image's URL, or its bytes as base64 or as a data URI.
        location: what of that may be shown.
        problem: why the image is not available; None where it may be.
    """

    key: str
    text: str = ""
    location: str = ""
    problem: str | None = None


class ImageReferences:
    """Finds the images of a source's rows, one after the other.

    Args:
        home: the URL of the source.
        image, key: columns with the image and, where there is one, with the row's key.
        encoding: what a string that is no data URI holds.
        refusal: returns why a URL must not be requested; None where it may.
        hide: removes secrets from a string.
    """

    def __init__(
        self,
        home: str,
        image: str,
        key: str | None,
        encoding: Encoding,
        refusal: Callable[[str], str | None],
        hide: Callable[[str], str],
    ) -> None:
        self.home, self.image, self.key, self.encoding = home, image, key, encoding
        self._refusal, self._hide = refusal, hide
        self._numbers: dict[int, dict[int, int]] = {}

    def of(self, row: TableRow, page: str) -> ImageReference:
        """Return the image of a row on the page with that URL."""
        text = row.only(self.image)
        own = plain_key(row.only(self.key) or "")
        place = f"{shown(self.home).rpartition('/')[2]}, {row.place}"
        if text is None:
            several = len(row.cells.get(self.image, ())) > 1
            return ImageReference(own or place, problem="names several images" if several else "names no image")
        if self.encoding == "base64" or is_data_uri(text):
            digest = hashlib.sha256("".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()
            return ImageReference(own or digest[:32], text)
        try:
            url = urldefrag(urljoin(page, text)).url
        except ValueError:
            return ImageReference(own or place, problem="names no URL")
        refused = self._refusal(url)
        key = own or self._numbered(self._key_of(url), url) or place
        problem = None if refused is None else f"is not requested: {refused}"
        return ImageReference(self._hide(key), url, self._hide(shown(url)), problem)

    def _key_of(self, url: str) -> str:
        """The path of a URL, below the host's name where that differs from the source's."""
        path = plain_key(unquote(urlsplit(url).path))
        foreign = origin(url) != origin(self.home)
        return plain_key(f"{shown(url).partition('://')[2].partition('/')[0]}/{path}") if path and foreign else path

    def _numbered(self, key: str, url: str) -> str:
        """The same key for the same URL, and another one for each further URL that differs only in its query."""
        numbers = self._numbers.setdefault(stable_hash(key), {})
        number = numbers.setdefault(stable_hash(url), 1 + len(numbers))
        return key if number == 1 or not key else f"{key}?{number}"


def is_data_uri(text: str) -> bool:
    """Whether a string is a URI that holds its bytes itself (RFC 2397)."""
    return _DATA_URI.match(text) is not None


def decoded(text: str, max_bytes: int) -> bytes:
    """Decode base64 (either alphabet, with or without padding) or a data URI.

    Raises:
        ValueError: the string is neither, or holds more than `max_bytes`; the message says which.
    """
    head = _DATA_URI.match(text)
    body = text[head.end() :] if head is not None else text
    fits = len(body) // 4 * 3 <= 3 * max_bytes + 3
    if fits and head is not None and head[1] is None:
        data = unquote_to_bytes(body)
    elif fits:
        plain = "".join((unquote(body) if head is not None else body).split()).translate(_URL_ALPHABET).rstrip("=")
        try:
            data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError:
            raise ValueError("is no base64") from None
    if not fits or len(data) > max_bytes:
        raise ValueError(f"has more than {max_bytes:,} bytes, the limit max_bytes=")
    return data
