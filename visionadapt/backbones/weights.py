"""Weight files: read them without running code, load them into a model despite wrappers and prefixes, hash weights."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from visionadapt.backbones.packaged import from_lite_names
from visionadapt.errors import BackboneError
from visionadapt.system.text import first_of

Tensors = dict[str, Tensor]

_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema", "teacher")
_WRAPPERS = (
    *_AVERAGED,
    *("state_dict", "model_state_dict", "model", "net", "network", "student", "params", "weights", "module"),
)
"""Keys below which training programs store the weights, the ones to prefer first."""
_MOST_WRAPPERS = 8
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
_MOST_RATIO = 10
"""Times the size of a torch file that its content may have; torch itself does not compress."""
_ALWAYS = 2**26
_HEADS = ("head", "head_dist", "fc", "classifier", "heads")


def weights_hash(model: nn.Module) -> str:
    """Return `tensors_hash` of the state dict by sorted name."""
    return tensors_hash((f"{name} ", tensor) for name, tensor in sorted(model.state_dict().items()))


def tensors_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 (64 hex digits) over some tensors, each with its title, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for title, tensor in tensors:
        digest.update(f"{title}{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> Tensors:
    """Read the named tensors of a safetensors file, or of a torch file that needs no code to be read.

    In a checkpoint, averaged weights (`state_dict_ema`, `ema`, `teacher`, …) take precedence over `state_dict`,
    `model_state_dict`, `model`, `net`, `params` and the like.

    Raises:
        BackboneError: the file is missing, unreadable as plain tensors, or has no tensor.
    """
    if path.is_dir():
        raise BackboneError(
            f"{path} is a folder, no weights file: to start from a trained classifier, use --from {path}"
        )
    if not path.is_file():
        raise BackboneError(f"{path}: no such weights file: pass a .safetensors or .pth file, or --weights none")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = {str(name): tensor for name, tensor in _unwrapped(loaded).items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise BackboneError(f"{path}: holds no named tensors: pass a file of a model's weights (a state dict)")
    return tensors


def fit(model: nn.Module, tensors: Tensors, path: Path, channels: int = 3) -> None:
    """Load `tensors` into `model`, without a head, after removing prefixes and resampling position embeddings.

    Of a checkpoint that holds more than the model, such as a loss or a second copy, the part below one prefix is taken
    that has all of the model's names; an averaged copy is preferred.
    Weights of a first layer for three channels are adapted to the model's `channels`.

    Raises:
        BackboneError: a tensor is then still missing, unexpected, of another shape or not finite; nothing is loaded.
    """
    expected = model.state_dict()
    given = _without_prefixes(tensors, expected)
    if "_conv_stem.weight" in given and hasattr(model, "conv_stem"):
        given = from_lite_names(given, model)
    ready = _for_channels(_without_head(given, expected, model), expected, model, channels)
    faults = _faults(ready, expected)
    if faults:
        ready = _for_channels(_without_head(_converted(given, model), expected, model), expected, model, channels)
        faults = _faults(ready, expected)
    if faults:
        raise BackboneError(f"{path}: does not fit the backbone: {'; '.join(faults)}: use the model that it belongs to")
    for name, tensor in ready.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BackboneError(f"{path}: {name} holds numbers that are not finite: get the file again, or another one")
    model.load_state_dict(ready, strict=False)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{path}: not a readable safetensors file ({reason}): save it again") from error


def _read_torch(path: Path) -> Any:
    """Read with torch's unpickler for plain tensors, which raises any exception on damaged bytes."""
    _check_unpacked(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BackboneError(
            f"{path}: not readable as plain tensors: it is damaged, or reading it would run code; "
            f"convert it to .safetensors if you trust it"
        ) from error


def _check_unpacked(path: Path) -> None:
    """Raise BackboneError for a torch file, a ZIP archive, that is far larger unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch's older format, or damaged
    size = path.stat().st_size
    if unpacked > _MOST_RATIO * size + _ALWAYS:
        reason = f"has {size:,} bytes and unpacks to {unpacked:,}, which is no file of weights"
        raise BackboneError(f"{path}: {reason}: save it again with torch.save, or as .safetensors")


def _unwrapped(loaded: Any, above: tuple[int, ...] = ()) -> Mapping[str, Any]:
    """Descend through `state_dict`, `model` and similar keys to the mapping that holds the tensors, if there is one."""
    if not isinstance(loaded, Mapping) or id(loaded) in above or len(above) == _MOST_WRAPPERS:
        return {}  # a checkpoint can contain itself
    for name in _WRAPPERS:
        inner = _unwrapped(loaded.get(name), (*above, id(loaded)))
        if inner:
            return inner
    return loaded if any(isinstance(value, Tensor) for value in loaded.values()) else {}


def _without_prefixes(tensors: Tensors, expected: Mapping[str, Tensor]) -> Tensors:
    """Return what is below a prefix that has all of the model's names, whatever it is called.

    If there is none, remove any chain of `module.`, `backbone.` and similar prefixes, if more names then match.
    """
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    anchor = min(needed, key=len)
    prefixes = {name.removesuffix(anchor) for name in tensors if name == anchor or name.endswith(f".{anchor}")}
    whole = [prefix for prefix in prefixes if all(f"{prefix}{name}" in tensors for name in needed)]
    if whole:
        chosen = min(whole, key=lambda prefix: (not any(word in prefix for word in ("ema", "teacher")), len(prefix)))
        return {name.removeprefix(chosen): tensor for name, tensor in tensors.items() if name.startswith(chosen)}
    shorter = {_bare(name): tensor for name, tensor in tensors.items()}
    gained = len(shorter.keys() & expected.keys()) > len(tensors.keys() & expected.keys())
    return shorter if gained else tensors


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _without_head(tensors: Tensors, expected: Mapping[str, Tensor], model: Any) -> Tensors:
    """Remove the tensors of a classifier head."""
    named = model.pretrained_cfg.get("classifier") or ()
    heads = {*_HEADS, *((named,) if isinstance(named, str) else named)}
    prefixes = tuple(f"{head}." for head in heads)
    return {name: tensor for name, tensor in tensors.items() if name in expected or not name.startswith(prefixes)}


def _for_channels(tensors: Tensors, expected: Mapping[str, Tensor], model: Any, channels: int) -> Tensors:
    """Adapt the weights of the first convolutions from three channels, where they do not fit, as timm does."""
    named = model.pretrained_cfg.get("first_conv") or ()
    names = {f"{name}.weight" for name in ((named,) if isinstance(named, str) else named)} & tensors.keys()
    changed = {}
    for name in names & expected.keys():
        if channels != 3 and tensors[name].shape != expected[name].shape:
            with contextlib.suppress(NotImplementedError, ValueError):  # then it is reported as misshapen
                changed[name] = adapt_input_conv(channels, tensors[name])
    return {**tensors, **changed}


def _converted(tensors: Tensors, model: nn.Module) -> Tensors:
    """Apply the family's own conversion in timm: original names, position embeddings for another image size.

    If the conversion fails, return the tensors unchanged, so that their names are reported.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(convert(dict(tensors), model))
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, TypeError, AssertionError):
        return tensors


def _faults(tensors: Tensors, expected: Mapping[str, Tensor]) -> list[str]:
    """List missing, unexpected and misshapen tensors; a missing batch counter is fine."""
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} {list(tensors[name].shape)} for {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    return [f"{len(names)} {kind} ({first_of(names, 3)})" for kind, names in kinds.items() if names]
