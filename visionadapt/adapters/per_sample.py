"""One batch in which each sample has an adapter of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from visionadapt.adapters.attach import names
from visionadapt.adapters.methods.vpt import PromptLayer
from visionadapt.adapters.slot import places, points_of
from visionadapt.errors import AdapterError


@contextmanager
def mixed(model: nn.Module, chosen: Sequence[str | None]) -> Iterator[None]:
    """Within the block, sample i of a batch [N, …] passes through adapter `chosen[i]` alone; None is the bare model.

    Every layer runs once for each name that occurs, on all of its samples together. Samples lie along the first axis.

    Raises:
        AdapterError: a name is unknown, or belongs to a method that changes the weights or the number of tokens, which
            all samples share.
    """
    wanted = [name for name in dict.fromkeys(chosen) if name is not None]
    _check(model, wanted)
    rows = {name: torch.tensor([i for i, other in enumerate(chosen) if other == name]) for name in wanted}
    slots = [place.slot for place in places(model)]
    for slot in slots:
        slot.rows = {name: index for name, index in rows.items() if name in slot}
        slot.batch = len(chosen)
    try:
        yield
    finally:
        for slot in slots:
            slot.rows, slot.batch = None, 0


def _check(model: nn.Module, wanted: Sequence[str]) -> None:
    existing = names(model)
    unknown = [name for name in wanted if name not in existing]
    if unknown:
        raise AdapterError(f"no adapter is named {unknown[0]!r}; there are {', '.join(existing) or 'none'}")
    for place in places(model):
        for name, layer in place.slot.items():
            shared = "weight" in points_of(layer) or not points_of(layer)
            if (name in wanted or name in place.slot.active) and (shared or isinstance(layer, PromptLayer)):
                raise AdapterError(
                    f"the adapter {name!r} at {place.slot.site} changes what all samples of a batch share; "
                    f"run its samples apart, with switch"
                )
