"""Images as a JSON answer has them, URLs or bytes as base64, and the keys that name them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Callable
from typing import Literal, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urldefrag, urljoin, urlsplit

from visionadapt.core.naming import stable_hash
from visionadapt.sources.tables.readers import TableRow
from visionadapt.sources.tabular import only
from visionadapt.sources.web.urls import origin, shown

Encoding = Literal["url", "base64"]

_DATA_URI = re.compile(r"data:[^,]*?(;\s*base64)?\s*,", re.IGNORECASE)
_URL_ALPHABET = str.maketrans("-_", "+/")


class ImageReference(NamedTuple):
    """A row's picture.

    Attributes:
        key: the row's key.
        text: its URL, or its bytes as base64 or as a data URI.
        location: what of that may be shown.
        problem: why it cannot be had; None where it may be.
    """

    key: str
    text: str
    location: str
    problem: str | None


class ImageReferences:
    """Finds the pictures of a source's rows, one after the other.

    Args:
        home: the URL of the source.
        image, key: columns with the picture and, where there is one, with the row's key.
        encoding: what a text that is no data URI holds.
        refusal: why a URL must not be asked; None where it may.
        hide: takes what is secret out of a text.
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
        self._texts: dict[int, dict[int, int]] = {}

    def of(self, row: TableRow, page: str) -> ImageReference:
        """The picture of a row that stands on the page with that URL."""
        text = only(row, self.image)
        own = plain_key(only(row, self.key) or "")
        place = f"{shown(self.home).rpartition('/')[2]}, {row.place}"
        if text is None:
            several = len(row.cells.get(self.image, ())) > 1
            return ImageReference(own or place, "", "", "names several pictures" if several else "names no picture")
        if self.encoding == "base64" or is_data_uri(text):
            digest = hashlib.sha256("".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()
            return ImageReference(own or digest[:32], text, "", None)
        try:
            url = urldefrag(urljoin(page, text)).url
        except ValueError:
            return ImageReference(own or place, "", "", "names no URL")
        problem = self._refusal(url)
        key = own or self._numbered(self._key_of(url), url) or place
        return ImageReference(
            self._hide(key), url, self._hide(shown(url)), None if problem is None else f"is not asked for: {problem}"
        )

    def _key_of(self, url: str) -> str:
        """The path of a URL, behind the host's name where that is another one than the source's."""
        path = plain_key(unquote(urlsplit(url).path))
        foreign = origin(url) != origin(self.home)
        return plain_key(f"{shown(url).partition('://')[2].partition('/')[0]}/{path}") if path and foreign else path

    def _numbered(self, key: str, url: str) -> str:
        """The same key for the same URL, and another one for each further URL that differs in its query alone."""
        numbers = self._texts.setdefault(stable_hash(key), {})
        number = numbers.setdefault(stable_hash(url), 1 + len(numbers))
        return key if number == 1 or not key else f"{key}?{number}"


def plain_key(text: str) -> str:
    """A text as a key: relative, POSIX, without `..`, Unicode NFC; empty where it names nothing."""
    plain = text.strip().replace("\\", "/").replace("\0", "\\x00")
    return unicodedata.normalize("NFC", posixpath.normpath(f"/{plain}").lstrip("/"))


def is_data_uri(text: str) -> bool:
    """Whether a text is a URI that holds its bytes itself (RFC 2397)."""
    return _DATA_URI.match(text) is not None


def decoded(text: str, max_bytes: int) -> bytes:
    """Return the bytes that base64 (either alphabet, with or without padding) or a data URI stands for.

    Raises:
        ValueError: it is neither, or stands for more than `max_bytes`; the text says which.
    """
    head = _DATA_URI.match(text)
    body = text[head.end() :] if head is not None else text
    if len(body) // 4 * 3 > 3 * max_bytes + 3:
        raise ValueError(_too_large(max_bytes))
    if head is not None and head[1] is None:
        data = unquote_to_bytes(body)
    else:
        plain = "".join((unquote(body) if head is not None else body).split()).translate(_URL_ALPHABET).rstrip("=")
        try:
            data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is no base64") from None
    if len(data) > max_bytes:
        raise ValueError(_too_large(max_bytes))
    return data


def _too_large(max_bytes: int) -> str:
    return f"has more than {max_bytes:,} bytes, the limit max_bytes="
