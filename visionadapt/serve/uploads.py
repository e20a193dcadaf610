"""Read the images of a request, from multipart form data or a body that is one image; in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from visionadapt.serve.limits import Limits, RequestError, busy
from visionadapt.system.text import utf8_safe

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_LONGEST_NAME = 1000


class Upload(NamedTuple):
    """An image file of a request: its name, empty without one, and its bytes."""

    name: str
    data: bytes


class Memory:
    """Counts the bytes and requests that are in progress, and refuses those above the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = self._requests = 0

    @asynccontextmanager
    async def request(self) -> AsyncIterator[Held]:
        """Count a request, and within it the bytes that it holds.

        Raises:
            RequestError: there are too many requests (503).
        """
        if self._requests >= self._limits.max_requests:
            raise busy()
        held = Held(self)
        self._requests += 1
        try:
            yield held
        finally:
            self._requests -= 1
            self._bytes -= held.bytes

    def take(self, count: int) -> None:
        """Count bytes; raise RequestError (503) if there are too many."""
        if self._bytes + count > self._limits.max_waiting_bytes:
            raise busy()
        self._bytes += count


class Held:
    """The bytes that one request holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count bytes; raise RequestError (503) if all requests together hold too many."""
        self._memory.take(count)
        self.bytes += count


async def read_uploads(request: Request, limits: Limits, held: Held) -> list[Upload]:
    """Return the images of a request.

    Raises:
        RequestError: it is too large (413), takes too long (408), is damaged (400), or holds no image (415, 422).
        ClientDisconnect: its client has gone.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind.startswith((b"text/", b"application/json")):
        raise RequestError(
            415,
            f"{kind.decode('latin-1')} holds no image; send one with the content type image/jpeg "
            "or the like, or several as multipart/form-data",
        )
    try:
        async with asyncio.timeout(limits.seconds):
            if kind == b"multipart/form-data":
                uploads = await _read_form(request, limits, held, options.get(b"boundary"))
            else:
                uploads = [Upload("", b"".join([part async for part in _parts(request, limits, held)]))]
    except TimeoutError:
        raise RequestError(408, f"the request took longer than {limits.seconds:g} s to arrive") from None
    if not uploads or not any(upload.data for upload in uploads):
        raise RequestError(422, "the request holds no image; send multipart/form-data with files, or one image")
    return uploads


async def _parts(request: Request, limits: Limits, held: Held) -> AsyncIterator[bytes]:
    """Yield the parts of a body, up to the limit on its bytes."""
    refused = RequestError(413, f"the request has more than {limits.max_bytes:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limits.max_bytes:
        raise refused
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > limits.max_bytes:
            raise refused
        held.add(len(part))
        yield part


async def _read_form(request: Request, limits: Limits, held: Held, boundary: bytes | None) -> list[Upload]:
    if not boundary:
        raise RequestError(400, "the multipart request names no boundary")
    form = _Form(limits.max_files)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for part in _parts(request, limits, held):
            parser.write(part)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError(400, "the multipart request is damaged") from error
    if not form.ended:
        raise RequestError(400, "the multipart request ends before its last part")
    return form.uploads


class _Form:
    """Collects the files of a form while it is parsed; other fields are ignored."""

    def __init__(self, max_files: int) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._max_files = max_files
        self._field, self._value = b"", b""
        self._name: str | None = None
        self._data: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name, self._data = None, []

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" in options:
                self._name = utf8_safe(options[b"filename"].decode("utf-8", "replace"))[:_LONGEST_NAME]
        self._field, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._data.append(data[start:end])

    def _end_part(self) -> None:
        if self._name is None:
            return
        if len(self.uploads) == self._max_files:
            raise RequestError(413, f"the request has more than {self._max_files} images")
        self.uploads.append(Upload(self._name, b"".join(self._data)))
        self._data = []

    def _end(self) -> None:
        self.ended = True
