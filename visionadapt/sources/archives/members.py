"""List the members of a tar or zip archive: names, places and what is wrong with each; nothing is unpacked."""

from __future__ import annotations

import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from visionadapt.errors import ImageError, SourceError
from visionadapt.sources.archives.files import ArchiveFile, Reading

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_LOCAL = struct.Struct("<4s22xHH")
_MOST_MEMBERS = 10_000_000


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: as the archive has it; empty for the archive itself, where its rest cannot be read.
        offset: where its bytes begin in the archive; of a zip, its own header.
        size: number of its bytes.
        packed: number of bytes in the archive, if they are compressed; 0 where they are stored as they are.
        problem: why it cannot be read; None where it can.
    """

    name: str
    offset: int = 0
    size: int = 0
    packed: int = 0
    problem: str | None = None


def members(archive: ArchiveFile, title: str) -> Iterator[Member]:
    """Yield the files of an archive in their order, with what is wrong; `title` names it, and its suffix its kind."""
    try:
        found = _of_zip(archive, title) if title.lower().endswith(".zip") else _of_tar(archive, title)
        for number, member in enumerate(found):
            if number == _MOST_MEMBERS:
                yield Member("", problem=f"has more than {_MOST_MEMBERS:,} members, of which the rest is not read")
                return
            yield member
    except OSError as error:
        raise SourceError(f"{title} cannot be read ({error.strerror})") from error


def _of_tar(archive: ArchiveFile, title: str) -> Iterator[Member]:
    size, count = archive.size, 0
    try:
        with tarfile.open(fileobj=Reading(archive, title), mode="r:", errors="backslashreplace") as tar:
            while (info := tar.next()) is not None:
                vars(tar)["members"].clear()  # which would keep every header
                count += 1
                if not info.isdir():
                    yield _tar_member(info, size)
            ended = archive.read(tar.offset, tarfile.BLOCKSIZE, title)
            # `next` returns None at a block of zeros, but also where a header is cut off
            whole = count > 0 and len(ended) == tarfile.BLOCKSIZE and not any(ended)
    except (tarfile.TarError, ValueError, OverflowError, EOFError):
        whole = False
    if not whole and not _is_empty(archive, title, count):
        other = _other_kind(archive, title) if count == 0 else None
        yield Member("", problem=other or f"is cut off or damaged after {count:,} members: fetch the archive again")


def _other_kind(archive: ArchiveFile, title: str) -> str | None:
    """What an archive is, by its first bytes, if it is not of the kind that its suffix says."""
    head = archive.read(0, tarfile.BLOCKSIZE, title)
    if not head:
        return "is empty (0 bytes)"
    if re.match(rb"\x1f\x8b|BZh|\xfd7zXZ|\(\xb5/\xfd|Rar!|7z\xbc\xaf", head):
        return "is compressed as a whole, whatever its suffix says: make it a plain .tar"
    if title.lower().endswith(".zip"):
        return "is a tar archive: call it .tar" if head[257:262] == b"ustar" else None
    return "is a zip archive: call it .zip" if head.startswith(b"PK") else None


def _is_empty(archive: ArchiveFile, title: str, count: int) -> bool:
    """Whether an archive has no members and ends as it should."""
    ended = archive.read(0, tarfile.BLOCKSIZE, title)
    return count == 0 and len(ended) == tarfile.BLOCKSIZE and not any(ended)


def _tar_member(info: tarfile.TarInfo, size: int) -> Member:
    problem = None
    if info.issym() or info.islnk():
        problem = "is a link, which is not followed in an archive"
    elif not info.isreg() or info.issparse():
        problem = "is no plain file"
    elif info.offset_data + info.size > size:
        problem = "is cut off with the archive"
    return Member(info.name, info.offset_data, info.size, 0, problem or name_problem(info.name))


def _of_zip(archive: ArchiveFile, title: str) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(Reading(archive, title)) as file:
            infos = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError):
        other = _other_kind(archive, title)
        yield Member("", problem=other or "is cut off or damaged, and cannot be read as zip: fetch the archive again")
        return
    for info in infos:
        if info.is_dir():
            continue
        problem = None
        if info.flag_bits & 1:
            problem = "is encrypted"
        elif (info.external_attr >> 16) & 0o170000 == 0o120000:
            problem = "is a link, which is not followed in an archive"
        elif info.compress_type not in {_STORED, _DEFLATED}:
            problem = "is compressed by a method that is not read; store it, or deflate it"
        elif info.compress_type == _STORED and info.compress_size != info.file_size:
            problem = "has two different sizes"
        packed = info.compress_size if info.compress_type == _DEFLATED else 0
        plain = problem or name_problem(info.filename)
        yield Member(info.filename, info.header_offset, info.file_size, packed, plain)


def name_problem(name: str) -> str | None:
    """Return why a member's name cannot be a key; None where it can."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return "its name leads out of the archive"
    return "its name holds a NUL character" if "\0" in name else None


def read_member(archive: ArchiveFile, title: str, member: Member, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a member.

    Raises:
        ImageError: it is larger than `max_bytes`, whatever the archive says, or cut off or damaged.
    """
    if member.size > max_bytes:
        raise ImageError(name, f"has {member.size:,} bytes, more than the limit max_bytes={max_bytes:,}")
    if not title.lower().endswith(".zip"):
        data = archive.read(member.offset, member.size, name)
    else:
        data = _read_zipped(archive, member, name)
    if len(data) != member.size:
        raise ImageError(name, "is cut off, or has another size than its archive says")
    return data


def _read_zipped(archive: ArchiveFile, member: Member, name: str) -> bytes:
    head = archive.read(member.offset, _LOCAL.size, name)
    if len(head) != _LOCAL.size:
        raise ImageError(name, "is cut off with its archive")
    mark, names, extra = _LOCAL.unpack(head)
    if mark != b"PK\x03\x04":
        raise ImageError(name, "has no header where its archive says")
    start = member.offset + _LOCAL.size + names + extra
    if not member.packed:
        return archive.read(start, member.size, name)
    packed = archive.read(start, min(member.packed, 2 * member.size + 1024), name)
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
    except zlib.error as error:
        raise ImageError(name, "is damaged: it cannot be decompressed") from error
