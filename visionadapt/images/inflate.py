"""Inflate zlib streams (RFC 1950) piece by piece, in bounded memory."""

from __future__ import annotations

import zlib

_INPUT = 2**18


class Inflater:
    """A zlib stream, read from its beginning.

    Args:
        stream: the compressed bytes; what follows the stream is ignored.
    """

    def __init__(self, stream: bytes | memoryview) -> None:
        self._stream = memoryview(stream)
        self._at = 0
        self._inflater = zlib.decompressobj()

    @property
    def ended(self) -> bool:
        """Whether the end of the stream is read, and its checksum is right."""
        return self._inflater.eof

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer at the end; raise `zlib.error` where the stream is damaged."""
        parts: list[bytes] = []
        while size > 0 and not self._inflater.eof:
            source = self._inflater.unconsumed_tail or bytes(self._stream[self._at : self._at + _INPUT])
            self._at += 0 if self._inflater.unconsumed_tail else len(source)
            part = self._inflater.decompress(source, size)
            if not part and not source:
                break
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self, surplus: int) -> bool:
        """Whether the stream ends within the next `surplus` bytes, with the right checksum."""
        while not self.ended and surplus > 0:
            left = len(self.read(min(surplus, 2**20)))
            if not left:
                break
            surplus -= left
        return self.ended
