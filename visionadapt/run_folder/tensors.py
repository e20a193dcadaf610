"""The safetensors files of a run folder, and the checkpoint among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from visionadapt.errors import RunError
from visionadapt.run_folder.folder import missing
from visionadapt.system.storage import write_bytes
from visionadapt.training.epochs import TrainingState

_KEY = "visionadapt"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts, which are plain data, as one safetensors file, atomically."""
    write_bytes(path, safetensors_bytes(dict(tensors), {_KEY: json.dumps(dict(facts))}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of a run's safetensors file; raise RunError if it is missing, damaged or foreign."""
    if not path.exists():
        raise missing(path.parent, path.name)
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in sorted(file.keys())}, facts
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({error}); it is damaged or no file of visionadapt's") from error


def write_checkpoint(run: Path, state: TrainingState) -> None:
    """Replace the checkpoint by `state`, atomically."""
    write_tensors(run / "checkpoint.safetensors", state.tensors, state.facts)


def read_checkpoint(run: Path) -> TrainingState | None:
    """Return the state to continue from; None before the end of the first epoch."""
    path = run / "checkpoint.safetensors"
    return TrainingState(*read_tensors(path)) if path.exists() else None
