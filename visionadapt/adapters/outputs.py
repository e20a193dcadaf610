"""The tensor that adapters change in what a module returns: the output itself, or the first value in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from visionadapt.errors import AdapterError


def tensor_in(output: Any, site: str) -> Tensor:
    """Return the tensor; raise AdapterError if the first value of a list, tuple, mapping or dataclass is none."""
    if isinstance(output, Tensor):
        return output
    found = None
    if isinstance(output, list | tuple):
        found = output[0] if output else None
    elif isinstance(output, Mapping):
        found = next(iter(output.values()), None)
    elif is_dataclass(output):
        found = getattr(output, fields(output)[0].name)
    if not isinstance(found, Tensor):
        raise AdapterError(
            f"{site} returns {type(output).__name__}, whose first value is no tensor to adapt; choose other places "
            f"with where="
        )
    return found


def with_tensor(output: Any, tensor: Tensor) -> Any:
    """Return the output, of the same type, with another tensor in that place."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, list):
        return [tensor, *output[1:]]
    if isinstance(output, tuple):
        named: Any = output if hasattr(output, "_fields") else None
        return (tensor, *output[1:]) if named is None else named._replace(**{named._fields[0]: tensor})
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[next(iter(output))] = tensor
        return changed
    return replace(output, **{fields(output)[0].name: tensor})
