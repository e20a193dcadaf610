"""Run one batch in which each sample uses a different adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from visionadapt.adapters.attach import check_names
from visionadapt.adapters.slot import places, points_of
from visionadapt.errors import AdapterError


@contextmanager
def mixed(model: nn.Module, chosen: Sequence[str | None]) -> Iterator[None]:
    """Within the context, run sample i of a batch [N, …] through adapter `chosen[i]` only; None is the bare model.

    Every layer runs once per name, on all of that name's samples together. Samples are the first axis.

    Raises:
        AdapterError: a name is unknown, or belongs to a method that changes the weights or the number of tokens, which
            all samples share.
    """
    requested = [name for name in dict.fromkeys(chosen) if name is not None]
    _check(model, requested)
    rows = {name: torch.tensor([i for i, other in enumerate(chosen) if other == name]) for name in requested}
    slots = [place.slot for place in places(model)]
    for slot in slots:
        slot.rows = {name: index for name, index in rows.items() if name in slot}
        slot.batch = len(chosen)
    try:
        yield
    finally:
        for slot in slots:
            slot.rows, slot.batch = None, 0


def _check(model: nn.Module, requested: Sequence[str]) -> None:
    if requested:
        check_names(model, *requested)
    for place in places(model):
        for name, layer in place.slot.items():
            points = points_of(layer)
            shared = not points or "weight" in points or getattr(layer, "changes_length", False)
            if shared and (name in requested or name in place.slot.active):
                raise AdapterError(
                    f"the adapter {name!r} at {place.slot.site} changes weights or tokens that all samples of a batch "
                    f"share; run its samples as a batch of their own, with switch"
                )
