"""The safetensors files of a run folder, and the checkpoint among them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from visionadapt.errors import RunError
from visionadapt.runs.folder import check_regular, missing, read_metrics
from visionadapt.runs.options import DEFAULTS, FORMER
from visionadapt.system.digest import BLANK, check_digest, sealed
from visionadapt.system.storage import replacing, write_bytes
from visionadapt.training.epochs import TrainingState

CHECKPOINTS = ("checkpoint.safetensors", "checkpoint-before.safetensors")
"""The latest checkpoint, and the one before it."""

_KEY = "visionadapt"
_DIGEST, _SETTINGS, _METRICS = "digest", "settings", "metrics_digest"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts, which are plain data, as one safetensors file with a digest, atomically."""
    write_bytes(path, _bytes_of(tensors, facts))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of a run's safetensors file.

    Raise RunError if it is missing, damaged or foreign, or holds a number that is not finite.
    """
    if not path.exists():
        raise missing(path.parent, path.name)
    try:
        check_regular(path)
        check_digest(path)
        with safe_open(path, "pt") as file:
            facts = dict(json.loads((file.metadata() or {})[_KEY]))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        what = "; it is damaged or no file of visionadapt's: restore it, or train again"
        raise RunError(f"{path} cannot be read ({error}){what}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise RunError(f"{path} holds numbers that are not finite, in {name}; restore it, or train again")
    facts.pop(_DIGEST, None)
    return tensors, facts


def write_checkpoint(run: Path, state: TrainingState, fixed: Mapping[str, Any]) -> None:
    """Replace the checkpoint by `state`, atomically; the one before it is kept too.

    `fixed` are the settings that a resumed run must have.
    """
    latest, before = (run / name for name in CHECKPOINTS)
    facts = {**state.facts, _SETTINGS: _plain(fixed), _METRICS: _metrics_digest(run, state.facts["epoch"])}
    with replacing(latest) as file:
        file.write(_bytes_of(state.tensors, facts))
        file.flush()
        os.fsync(file.fileno())
        if latest.exists():
            latest.replace(before)


def read_checkpoint(
    run: Path, fixed: Mapping[str, Any], say: Callable[[str], None], earlier: Iterable[Mapping[str, Any]] = ()
) -> TrainingState | None:
    """Return the state to continue from, of the latest sound checkpoint; None before the end of the first epoch.

    `say` receives a line about a damaged checkpoint that is passed over; `earlier` are settings that the run had before
    it got more epochs.

    Raises:
        RunError: all checkpoints are damaged, or the settings or metrics are not those that the run had.
    """
    errors: list[RunError] = []
    for path in (run / name for name in CHECKPOINTS):
        if not path.exists():
            continue
        try:
            tensors, facts = read_tensors(path)
            if type(facts.get("epoch")) is not int:
                raise RunError(f"{path} is no checkpoint of this version's; train again")
            break
        except RunError as error:
            errors.append(error)
    else:
        if errors:
            raise errors[0]
        return None
    for damage in errors:
        say(f"{damage}; going on from {path.name}, which is one epoch older")
    known = [_plain(settings) for settings in (fixed, *earlier)]
    began = facts.pop(_SETTINGS, None)
    if isinstance(began, dict):  # options that this version has and that one had not
        began = {**{name: value for name, value in _plain({**DEFAULTS, **FORMER}).items() if name in known[0]}, **began}
    if began not in known:
        _check_settings(run, began, known[0])
    if facts.pop(_METRICS, None) not in (None, _metrics_digest(run, facts["epoch"])):
        raise RunError(f"{run / 'metrics.jsonl'} is damaged, or was edited; restore it, or train again")
    return TrainingState(tensors, facts)


def _bytes_of(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    return sealed(safetensors_bytes(dict(tensors), {_KEY: json.dumps({_DIGEST: BLANK, **facts})}))


def _check_settings(run: Path, began: Any, now: Mapping[str, Any]) -> None:
    """Raise RunError if the settings of a checkpoint, if it has any, are not those of the run."""
    if began is None or began == now:
        return
    before = began if isinstance(began, dict) else {}
    name = next((name for name in (*now, *before) if name not in before or before[name] != now.get(name)), "settings")
    values = f"--{name.replace('_', '-')} was {before.get(name)!r:.200}, and is {now.get(name)!r:.200}"
    anew = f"start a new run with these settings (visionadapt runs {run} --toml)"
    raise RunError(f"{run / 'config.json'} is not what the run began with: {values}; restore it, or {anew}")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are read back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _digest_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _metrics_digest(run: Path, epochs: int) -> str:
    return _digest_of(read_metrics(run)[:epochs])
