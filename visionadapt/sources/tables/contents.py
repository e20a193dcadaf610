"""What a table's file holds, by its first bytes: its encoding, or why it is no such table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from visionadapt.errors import SourceError

WRITE_OUT = (
    "write its images into a folder for each class, or read it by a class of your own with classes, __iter__ and read "
    "(docs/guides/own-source.md): --data 'my_sources.py:MySource(…)'"
)
"""What to do with images that are in no files of their own."""
PIXELS = "holds pixels as numbers, and no names of image files"
_HEAD = 1024
_EXPORT = "export the sheet as CSV (UTF-8)"
_KINDS = (
    (rb"PK\x03\x04", f"is a zip file, as Excel and LibreOffice write them: {_EXPORT}"),
    (rb"\xd0\xcf\x11\xe0", f"is an Excel file: {_EXPORT}"),
    (rb"\x1f\x8b", "is compressed with gzip: unpack it"),
    (rb"PAR1", "is a Parquet file: give parquet(…)"),
    (rb"ARROW1|\xff\xff\xff\xff.{3}\x00", "is an Arrow file: give arrow(…)"),
    (rb"SQLite format 3", "is an SQLite database: give sql(sqlite:///…, table=…)"),
    (rb"version https://git-lfs", "is the pointer of a file in Git LFS: fetch the file itself with git lfs pull"),
    (rb"(?i)\s*<!doctype html|\s*<html", "is an HTML page: download the table itself"),
    (rb"\s*<\?xml", "is an XML file: convert it to CSV, with one row per image"),
    (rb"\s*(\[\s*\{|\{\s*\")", "is JSON: give json(…)"),
)
_ARRAYS = (
    (r"\.np[yz]$", rb"\x93NUMPY", "a NumPy file"),
    (r"\.(h5|hdf5?|he5)$", rb"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (r"\.mat$", rb"MATLAB [57]\.", "a MATLAB file (Python: scipy.io.loadmat)"),
    (r"\.(pkl|pickle|joblib)$", rb"\x80[\x02-\x05]", "a file of Python objects, which could run any code"),
    (r"\.(pt|pth|ckpt)$", rb"(?!)", "a PyTorch file, which could run any code"),
    (r"\.idx$|-(idx[13]-)?ubyte$", rb"\0\0[\x08-\x0e][\x01-\x04]", "a file of numbers in IDX (MNIST's format)"),
    (r"\.tfrecords?$|\.tfrecord-\d+", rb"(?!)", "a TFRecord file"),
)
"""Of files of arrays: what ends their names, how they begin, and what they are called."""
SPREADSHEETS = frozenset({".xls", ".xlsx", ".xlsm", ".xlsb", ".ods"})


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file; raise SourceError where it cannot be read."""
    with readable(path), path.open("rb") as file:
        return file.read(_HEAD)


def kind_of(path: Path) -> str | None:
    """Return what a file is and what to do with it, where it is of another kind than delimited text; None where not."""
    arrays = arrays_in(path)
    if arrays is not None:
        return f"is {arrays}, and is not read: {WRITE_OUT}"
    head = head_of(path).removeprefix(b"\xef\xbb\xbf")
    return next((told for pattern, told in _KINDS if re.match(pattern, head, re.DOTALL)), None)


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file: UTF-16 where its first bytes say so, else UTF-8, with or without a mark."""
    head = head_of(path)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(head) > 3 and head[1:2] == head[3:4] == b"\0" and head[:1] != b"\0":
        return "utf-16-le"
    if len(head) > 3 and head[:1] == head[2:3] == b"\0" and head[1:2] != b"\0":
        return "utf-16-be"
    return "utf-8-sig"


def arrays_in(path: Path) -> str | None:
    """Return what a file of arrays is called, by its name or first bytes; None for others. It is never loaded."""
    name = path.name.lower()
    told = next((told for ending, _, told in _ARRAYS if re.search(ending, name)), None)
    return told or next((told for _, sign, told in _ARRAYS if re.match(sign, head_of(path))), None)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of a table's file into one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        if error.encoding.lower().startswith("utf-16"):
            raise SourceError(f"{path}: is no whole UTF-16; save the table as UTF-8") from error
        raise SourceError(f"{path}, line {_undecodable(path)}: is no UTF-8; save the table as UTF-8") from error
    except UnicodeError as error:
        raise SourceError(f"{path}: is no whole UTF-16; save the table as UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({line_of(error)})") from error


def line_of(error: Exception) -> str:
    """Return the message of an error in one line."""
    return cast(str, getattr(error, "strerror", None) or " ".join(str(error).split()))


def _undecodable(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    with path.open("rb") as file:
        number = 0
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return number
