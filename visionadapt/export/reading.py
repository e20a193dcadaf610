"""Read an exported folder that may come from a stranger: nothing outside of it is opened, and none of its code runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionadapt.errors import RunError, SpecError
from visionadapt.export.folder import EXPECTED, FORMAT, MANIFEST, MODELS, STORED, ExportFormat
from visionadapt.export.golden import Array
from visionadapt.images import Preprocessing
from visionadapt.runs.folder import read_json
from visionadapt.runs.tensors import read_tensors
from visionadapt.system.storage import file_sha256, read_file

_NAME = re.compile(r"(golden/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Names of files in an exported folder: below it, without `..`."""
_MOST_GOLDEN = 50_000_000
_KINDS: dict[str, type] = {"class_names": list, "files": dict, "golden": list, "weights": dict, "preprocessing": list}


@dataclass(frozen=True)
class ExportedFolder:
    """An exported folder whose manifest and names were checked.

    Attributes:
        path: the folder.
        manifest: its manifest.
        prepare: the preprocessing that the manifest describes.
    """

    path: Path
    manifest: dict[str, Any]
    prepare: Preprocessing

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return tuple(self.manifest["class_names"])

    @property
    def threshold(self) -> float:
        """The probability below which predictions abstain; NaN if the manifest names none."""
        value = self.manifest.get("threshold")
        return float(value) if isinstance(value, int | float) else math.nan

    @property
    def kind(self) -> ExportFormat:
        """The format of its model."""
        return next(kind for kind, name in MODELS.items() if self.has(name))

    def has(self, name: str) -> bool:
        """Whether the manifest lists a file."""
        return name in self.manifest["files"]

    def changed_files(self) -> list[str]:
        """Return what is wrong with the files: missing, changed since the export, or not part of it."""
        listed: dict[str, str] = self.manifest["files"]
        found = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if not path.is_dir()}
        wrong = [f"{name} is missing" for name in listed if name not in found]
        kept = [name for name in listed if name in found]
        wrong += [f"{name} is not the exported one" for name in kept if file_sha256(self.path / name) != listed[name]]
        return wrong + [f"{name} is not part of the export" for name in sorted(found - listed.keys() - {MANIFEST})]

    def golden(self) -> dict[str, bytes]:
        """Return the bytes of the golden images by file name."""
        names = [entry["file"] for entry in self.manifest["golden"]]
        return {name: read_file(self.path / name, name, _MOST_GOLDEN) for name in names}

    def expected(self) -> dict[str, Array]:
        """Return the stored expected values of every stage, by name."""
        tensors, _ = read_tensors(self.path / EXPECTED)
        images, classes = len(self.manifest["golden"]), len(self.classes)
        fits = set(tensors) == set(STORED) and all(tensor.shape[:1] == (images,) for tensor in tensors.values())
        fits = fits and all(tensors[name].shape == (images, classes) for name in ("logits", "probabilities"))
        if not fits or not all(0 <= index < classes for index in tensors["class_index"].tolist()):
            raise RunError(f"{self.path / EXPECTED} does not fit {MANIFEST}; export again")
        return {name: tensor.numpy() for name, tensor in tensors.items()}


def open_export(folder: str | Path) -> ExportedFolder:
    """Open an exported folder.

    Raises:
        RunError: it is none, is damaged, or names files outside of itself.
    """
    folder = Path(folder)
    manifest = read_json(folder, MANIFEST)
    entries = manifest.get("golden")
    known = manifest.get("format") == FORMAT and all(type(manifest.get(name)) is kind for name, kind in _KINDS.items())
    known = known and all(isinstance(name, str) for name in manifest["class_names"])
    known = known and all(isinstance(entry, dict) and isinstance(entry.get("file"), str) for entry in entries or ())
    if not known:
        raise RunError(f"{folder / MANIFEST} is no export of this version's; export again")
    golden = [entry["file"] for entry in manifest["golden"]]
    for name in (*manifest["files"], *golden):
        if not _NAME.fullmatch(name) or ".." in name or name not in manifest["files"]:
            raise RunError(f"{folder / MANIFEST} names the file {name!r}, which no export has; do not use it")
    if sum(name in manifest["files"] for name in MODELS.values()) != 1:
        raise RunError(f"{folder / MANIFEST} names no model, or several; export again")
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise RunError(f"{path} is a link or a special file, which no export has; do not use it")
    try:
        prepare = Preprocessing.from_json(manifest["preprocessing"])
    except SpecError as error:
        raise RunError(f"{folder / MANIFEST}: {error}") from error
    return ExportedFolder(folder, manifest, prepare)
