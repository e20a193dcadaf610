"""Output of the frozen part of a model, cached on disk under the identity of its input.

A *space* is one folder: everything in it was computed with the same preprocessing, weights, cut, engine, precision,
batch size and library versions. `ids.bin` holds a 32-byte identity per row, `sums.bin` the CRC-32 of its tensors; one
flat file per tensor holds the rows.
Rows are only appended, data first and identities last, so that a process killed at any moment leaves complete rows.
`remarks.jsonl` holds the repairs and problems found while decoding; `sources.bin` and `contents.bin` which bytes the
objects of a store had.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionadapt.errors import RunError, without_secrets
from visionadapt.frozen.cache.contents import Contents
from visionadapt.frozen.cache.index import ID_BYTES, Identities
from visionadapt.system.locks import is_at, lock
from visionadapt.system.storage import json_text, remove_unfinished, write_json, write_text
from visionadapt.system.text import utf8_safe

DATA = "data.txt"
"""A file that names the images that a space was used for, one source a line, the latest first."""
_MOST_DATA = 5
IN_USE = "in_use"
"""A file in every space; processes that read or write there hold a shared lock on it."""


_MOST_TRIES = 5
_SUM_BYTES = 4


def space_folder(folder: Path, description: Mapping[str, Any]) -> Path:
    """Return the folder of the space with this description."""
    text = json.dumps(description, sort_keys=True)
    return folder / hashlib.sha256(text.encode()).hexdigest()[:24]


def cached_identities(folder: Path, description: Mapping[str, Any]) -> Identities:
    """Return the identities in the space with this description, without making it, locking it or checking its rows."""
    file = space_folder(folder, description) / "ids.bin"
    found = Identities(file)
    if file.exists():
        found.grow(file.stat().st_size // ID_BYTES)
    return found


class FeatureCache:
    """One space of the cache: identities → named tensors of one shape and dtype each.

    Its folder in the cache folder is named by a hash of `description`: all that the tensors depend on except the image.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = space_folder(folder, description)
        self.rows = Identities(self.folder / "ids.bin")
        self.contents = Contents(self.folder)
        self.layout: list[dict[str, Any]] = []
        self._maps: dict[str, NDArray[np.uint8]] = {}
        self._sound = np.zeros(0, np.bool_)
        try:
            weakref.finalize(self, os.close, _opened(self.folder, description))
        except OSError as error:
            raise self._unwritable(error) from error
        self.refresh()

    def append(self, identities: Sequence[bytes], tensors: Mapping[str, Tensor]) -> None:
        """Store one row per identity: tensors [B, …] on any device; identities already stored are skipped.

        Raise RunError if the disk is full, or the stored rows have other names, shapes or dtypes.
        """
        with self._locked():
            self.refresh()
            new = {identity: place for place, identity in enumerate(identities) if identity not in self.rows}
            if new:
                self._set_layout(tensors)
                self._write(new, tensors)

    def remark(self, remarks: Mapping[str, Any]) -> None:
        """Store remarks on some files by name; a later remark on the same file replaces the earlier one."""
        if not remarks:
            return
        lines = "".join(_remark_line(name, remark) + "\n" for name, remark in remarks.items())
        with self._locked(), (self.folder / "remarks.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0) + lines)
            file.flush()
            os.fsync(file.fileno())

    def remember(self, found: Mapping[str, str]) -> None:
        """Store the SHA-256 of objects in a store by their identities, both as 64 hex digits."""
        if found:
            with self._locked():
                self.contents.add(found)

    def remarks(self) -> dict[str, Any]:
        """Return every stored remark; a line left incomplete by a killed process is ignored.

        Raise RunError if a complete line is damaged.
        """
        path = self.folder / "remarks.jsonl"
        found: dict[str, Any] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
            try:
                [[name, remark, _]] = json.loads(line)
                intact = line == _remark_line(name, remark)
            except (ValueError, TypeError, RecursionError):
                intact = False
            if intact:
                found[name] = remark
            elif "]" in line[-2:] and not line.startswith('["'):  # as an earlier version wrote it
                raise self._damaged(path.name)
        return found

    def read(self, places: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the tensors [B, …] of the rows at B places (values of `rows`); raise RunError if they are gone."""
        picked = np.asarray(places, dtype=np.int64)
        batch = {}
        for part in self.layout:
            data = self._rows_of(part)[picked]
            dtype = getattr(torch, part["dtype"])
            batch[part["name"]] = torch.from_numpy(data.reshape(-1)).view(dtype).reshape(len(picked), *part["shape"])
        return batch

    def damaged(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows at some places are not as they were written; those found sound are not checked again."""
        if len(self._sound) < len(self.rows):
            self._sound = np.append(self._sound, np.zeros(len(self.rows) - len(self._sound), np.bool_))
        fresh = np.unique(places[~self._sound[places]])
        if len(fresh):
            parts = [self._rows_of(part) for part in self.layout]
            sums = self._rows_of({"name": "sums", "bytes": _SUM_BYTES})
            for place in fresh:
                self._sound[place] = sums[place].tobytes() == _sum([part[place] for part in parts])
        return ~self._sound[places]

    def repair(self, places: NDArray[np.int64], tensors: Mapping[str, Tensor]) -> None:
        """Write the rows at some places again: tensors [B, …] as for `append`."""
        rows = _bytes_of(self.layout, tensors, list(range(len(places))))
        with self._locked():
            for number, place in enumerate(places.tolist()):
                row = [data[number] for data in rows]
                names = [*(part["name"] for part in self.layout), "sums"]
                for name, data in zip(names, [*(each.tobytes() for each in row), _sum(row)], strict=True):
                    _write_at(self._file(name), place * len(data), data)
        self._sound[places] = True

    def _damaged(self, name: str) -> RunError:
        return RunError(f"the cache {self.folder} is damaged ({name}); remove this folder, and start again")

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"the cache {self.folder.parent} cannot be written ({error.strerror}); give --cache another")

    def _rows_of(self, part: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Return the bytes of every complete row of one tensor, uint8 [rows, bytes], without any partial rest."""
        name, shape = part["name"], (len(self.rows), part["bytes"])
        if not len(self.rows):
            return np.empty(shape, np.uint8)
        path = self._file(name)
        try:
            if path.stat().st_size < math.prod(shape):
                raise ValueError(f"{path} is shorter than {shape[0]} rows")
            if name not in self._maps or self._maps[name].shape != shape:
                self._maps[name] = np.memmap(path, dtype=np.uint8, mode="r", shape=shape)
        except (OSError, ValueError) as error:
            raise RunError(f"the cache {self.folder} was removed or cut short meanwhile; start again") from error
        return self._maps[name]

    def refresh(self) -> None:
        """Load what this or another process has appended since."""
        layout = self.folder / "layout.json"
        if not self.layout and layout.exists():
            self.layout = self._read_layout(layout)
        self.rows.grow(self._whole_rows())

    def _read_layout(self, path: Path) -> list[dict[str, Any]]:
        try:
            layout: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            sizes = [getattr(torch, part["dtype"]).itemsize * math.prod(part["shape"]) for part in layout]
            names = [part["name"] for part in layout]
            fits = sizes == [part["bytes"] for part in layout] and all(size > 0 for size in sizes)
            if not fits or not all(isinstance(name, str) and not {"/", "\0"} & set(name) for name in names):
                raise ValueError("sizes or names do not fit")
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(path.name) from error
        return layout

    def _whole_rows(self) -> int:
        """Return the number of rows whose identity and tensors are all on disk."""
        sizes = [("ids", ID_BYTES), ("sums", _SUM_BYTES), *((part["name"], part["bytes"]) for part in self.layout)]
        files = [(self._file(name), size) for name, size in sizes]
        return min(file.stat().st_size // size if file.exists() else 0 for file, size in files) if self.layout else 0

    def _write(self, new: Mapping[bytes, int], tensors: Mapping[str, Tensor]) -> None:
        """Append the rows at `new`'s places: cut off identities without data first, write the new identities last."""
        ids = self._file("ids")
        if ids.exists() and ids.stat().st_size > len(self.rows) * ID_BYTES:
            _append_at(ids, len(self.rows) * ID_BYTES, b"")
        rows = _bytes_of(self.layout, tensors, list(new.values()))
        for part, data in zip(self.layout, rows, strict=True):
            _append_at(self._file(part["name"]), len(self.rows) * part["bytes"], data.tobytes())
        sums = b"".join(_sum([data[number] for data in rows]) for number in range(len(new)))
        _append_at(self._file("sums"), len(self.rows) * _SUM_BYTES, sums)
        _append_at(ids, len(self.rows) * ID_BYTES, b"".join(new))
        self.rows.add(new)

    def _set_layout(self, tensors: Mapping[str, Tensor]) -> None:
        layout = [
            {
                "name": name,
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape[1:]),
                "bytes": tensor[0].numel() * tensor.element_size(),
            }
            for name, tensor in tensors.items()
        ]
        if not self.layout:
            write_json(self.folder / "layout.json", layout)
            self.layout = layout
        if self.layout != layout:
            raise RunError(f"the cache {self.folder} holds tensors of another shape; remove it or give --cache another")

    def note_data(self, name: str) -> None:
        """Remember which images the rows are of, the latest first, for people who look at the cache."""
        name = " ".join(without_secrets(utf8_safe(name)).split())
        known = data_of(self.folder)
        if known[:1] != [name]:
            with self._locked():
                write_text(
                    self.folder / DATA, "\n".join([name, *(each for each in known if each != name)][:_MOST_DATA])
                )

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.bin"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process write to the space within the block; turn OSError there into RunError."""
        try:
            with (self.folder / "lock").open("w") as file:
                lock(file)
                yield
        except OSError as error:
            raise self._unwritable(error) from error


def data_of(folder: Path) -> list[str]:
    """Return which images the rows of a space are of, the latest first; empty where nothing is known."""
    try:
        return (folder / DATA).read_text(encoding="utf-8").splitlines()[:_MOST_DATA]
    except (OSError, ValueError):
        return []


def _opened(folder: Path, description: Mapping[str, Any]) -> int:
    """Create a space if it is missing, and lock it; try again if another process removes it meanwhile."""
    for _ in range(_MOST_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            remove_unfinished(folder)
            text, path = json_text(dict(description)).encode("utf-8", "backslashreplace"), folder / "space.json"
            if not path.exists() or path.read_bytes() != text:
                write_json(path, dict(description))
            os.utime(folder / "space.json")
            descriptor = _hold(folder / IN_USE)
            if is_at(descriptor, folder / IN_USE):
                return descriptor
            os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "other processes remove it again and again", str(folder))


def _remark_line(name: str, remark: Any) -> str:
    """Return a line of `remarks.jsonl`, with its CRC-32. Its last two characters show that it is complete."""
    text = json.dumps([name, remark])
    return json.dumps([[name, remark, zlib.crc32(text.encode())]])


def _bytes_of(
    layout: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor], rows: list[int]
) -> list[NDArray[np.uint8]]:
    """Return the bytes of some rows of each tensor, uint8 [rows, bytes]."""
    picked = (tensors[part["name"]][rows].cpu().contiguous() for part in layout)
    return [each.reshape(-1).view(torch.uint8).numpy().reshape(len(rows), -1) for each in picked]


def _sum(row: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return the CRC-32 of a row's tensors, one after another."""
    found = 0
    for data in row:
        found = zlib.crc32(data.data, found)
    return found.to_bytes(_SUM_BYTES, "little")


def _hold(path: Path) -> int:
    """Take a shared lock on a file; return the descriptor that holds it until it is closed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    lock(descriptor, shared=True)
    return descriptor


def _write_at(path: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes at `offset`, and sync to disk."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _append_at(path: Path, offset: int, data: bytes) -> None:
    """Write `data` at `offset`, cutting off what a killed process left after it, and sync to disk."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
