"""A small S3 server on loopback with a given latency per request and faults: `ListObjectsV2`, `GET`, `HEAD`.

    python -m benchmarks.s3_server --folder photos --latency 0.02

It checks no signature. `serving` starts it in a process of its own, so that it does not share the measured one's time.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "photos"
_DATE = "Mon, 30 Nov 2026 10:00:00 GMT"
_PAGE = 1000


class Objects:
    """The objects of the bucket: the files of a folder, or as many synthetic ones of one size."""

    def __init__(self, folder: Path | None, count: int, size: int) -> None:
        self.folder = folder
        if folder is None:
            self.keys: Sequence[str] = [f"class {number % 10}/{number:08d}.jpg" for number in range(count)]
            self.data = os.urandom(size)
        else:
            self.keys = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        self.keys = sorted(self.keys)
        self.known = frozenset(self.keys)

    def read(self, key: str) -> bytes | None:
        """Return the bytes of an object; None where there is none."""
        if key not in self.known:
            return None
        return self.data if self.folder is None else (self.folder / key).read_bytes()

    def size(self, key: str) -> int:
        """Return an object's number of bytes."""
        return len(self.data) if self.folder is None else (self.folder / key).stat().st_size

    def page(self, query: dict[str, list[str]]) -> bytes:
        """Return one page of a listing, as XML."""
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        start = bisect_right(self.keys, after) if after else 0
        chosen = [key for key in self.keys[start : start + _PAGE] if key.startswith(prefix)]
        last = start + _PAGE >= len(self.keys)
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-30T10:00:00.000Z</LastModified>"
            f'<ETag>"{etag(key)}"</ETag><Size>{self.size(key)}</Size></Contents>'
            for key in chosen
        )
        token = "" if last else f"<NextContinuationToken>{escape(self.keys[start + _PAGE - 1])}</NextContinuationToken>"
        return (
            f'<?xml version="1.0"?><ListBucketResult><IsTruncated>{str(not last).lower()}</IsTruncated>'
            f"<KeyCount>{len(chosen)}</KeyCount>{token}{rows}</ListBucketResult>"
        ).encode()


def etag(key: str) -> str:
    """Return what stands for an object's ETag: objects never change here."""
    return hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()


async def answer(
    objects: Objects, latency: float, faults: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the requests of one connection until it is closed."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *lines = head.decode().split("\r\n")
            headers = dict(part.lower().split(": ", 1) for part in lines if ": " in part)
            await asyncio.sleep(latency)
            found = reply(objects, *line.split(" ")[:2], headers)
            if random.random() < faults:
                if random.random() < 0.5:
                    writer.write(_http("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>"))
                    continue
                writer.write(found[: len(found) * 2 // 3])
                return
            writer.write(found)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def reply(objects: Objects, method: str, target: str, headers: dict[str, str]) -> bytes:
    """Return the answer to one request."""
    parts = urlsplit(target)
    query, key = parse_qs(parts.query), unquote(parts.path).removeprefix(f"/{BUCKET}").lstrip("/")
    if not key and "list-type" in query:
        return _http("200 OK", objects.page(query), "Content-Type: application/xml")
    data = objects.read(key)
    if data is None:
        return _http("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
    status, facts = "200 OK", f'ETag: "{etag(key)}"\r\nLast-Modified: {_DATE}\r\nAccept-Ranges: bytes'
    if "range" in headers:
        first, last = headers["range"].removeprefix("bytes=").split("-")
        stop = min(int(last) + 1 if last else len(data), len(data))
        status, facts = "206 Partial Content", f"{facts}\r\nContent-Range: bytes {first}-{stop - 1}/{len(data)}"
        data = data[int(first) : stop]
    return _http(status, data, facts, body=method == "GET")


def _http(status: str, data: bytes, facts: str = "X-A: b", body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{facts}\r\n\r\n".encode()
    return head + data if body else head


async def serve(objects: Objects, latency: float, faults: float) -> None:
    """Serve on a free port, which is printed."""
    server = await asyncio.start_server(lambda r, w: answer(objects, latency, faults, r, w), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Run the server in a process of its own; yield its address."""
    command = [sys.executable, "-m", "benchmarks.s3_server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail: 503, or a cut body")
    given = parser.parse_args()
    asyncio.run(serve(Objects(given.folder, given.count, given.size), given.latency, given.faults))


if __name__ == "__main__":
    main()
