"""Names and types that describe an exported folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from visionadapt.runs.folder import is_run

ExportFormat = Literal["onnx", "torch"]
Reduction = Literal["float16", "int8"]

FORMAT = 1
MANIFEST, GOLDEN = "manifest.json", "golden"
EXPECTED = f"{GOLDEN}/expected.safetensors"
MODELS: Mapping[ExportFormat, str] = {"onnx": "model.onnx", "torch": "model.pt2"}
"""From images to answers."""
PREPARED_MODELS: Mapping[ExportFormat, str] = {"onnx": "prepared.onnx", "torch": "prepared.pt2"}
"""From pixels that are resized and normalised to answers."""
STAGES = ("resized", "prepared", "features", "logits", "probabilities", "class_index", "abstain", "distance")
"""What a model computes from images, by name, in this order."""
STORED = ("resized", "features", "logits", "probabilities", "class_index", "abstain", "distance")
"""Stages whose expected values are stored with the golden images; the others follow from them."""


@dataclass(frozen=True)
class Models:
    """The models of an export by file name, and what its manifest says of them."""

    files: Mapping[str, bytes]
    facts: Mapping[str, Any]


def array_digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 of a constant of a model, of its dtype and bytes: 64 hex digits."""
    return hashlib.sha256(str(array.dtype).encode() + array.tobytes()).hexdigest()


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export's manifest, and is no run folder."""
    found = any((folder / name).is_file() for name in MODELS.values())
    return found and (folder / MANIFEST).is_file() and not is_run(folder)
