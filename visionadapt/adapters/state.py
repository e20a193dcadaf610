"""Save and load the weights of adapters, under keys that do not depend on what wraps the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from visionadapt.adapters.attach import check_names
from visionadapt.adapters.freeze import forget_biases
from visionadapt.adapters.slot import places
from visionadapt.errors import AdapterError
from visionadapt.system.text import first_of


def state(model: nn.Module, name: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of one adapter, or of all, by keys `name/site/parameter`, ready for safetensors.

    They are detached, and copied only where a tensor is not contiguous or shares memory with a previous one.

    Args:
        model: a model with attached adapters.
        name: name of the adapter; None for all.

    Raises:
        AdapterError: no adapter has that name.
    """
    if name is not None:
        check_names(model, name)
    chosen = {key: tensor for key, tensor in _tensors(model).items() if name in (None, key.partition("/")[0])}
    seen: set[int] = set()
    found = {}
    for key, tensor in chosen.items():
        shared = tensor.data_ptr() in seen
        seen.add(tensor.data_ptr())
        own = tensor.detach().contiguous()
        found[key] = own.clone() if shared else own
    return found


def load_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors of `state` into the attached adapters of the same names.

    Raises:
        AdapterError: a key is missing or unknown, or a tensor has another shape; then nothing is copied.
    """
    loaded = {key.partition("/")[0] for key in tensors}
    own = {key: tensor for key, tensor in _tensors(model).items() if key.partition("/")[0] in loaded}
    _check(own, tensors)
    with torch.no_grad():
        for key, tensor in tensors.items():
            own[key].copy_(tensor)
    forget_biases(model)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}/{place.slot.site}/{key}": tensor
        for place in places(model)
        for name, layer in place.slot.items()
        for key, tensor in layer.state_dict(keep_vars=True).items()
    }


def _check(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    if not given:
        raise AdapterError("the state is empty; save the state of a model with an attached adapter")
    unknown = [key for key in given if key not in own]
    if unknown:
        shown = first_of(unknown, 1)
        raise AdapterError(f"the model has no tensor {shown}; attach with the settings it was saved with")
    missing = [key for key in own if key not in given]
    if missing:
        raise AdapterError(f"the state lacks {first_of(missing, 1)}; attach with the settings it was saved with")
    for key, tensor in given.items():
        if tensor.shape != own[key].shape:
            shapes = f"{list(tensor.shape)} in the state and {list(own[key].shape)} in the model"
            raise AdapterError(f"{key} has shape {shapes}")
