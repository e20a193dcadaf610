"""Run one batch in which each sample uses a different adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from visionadapt.adapters.attach import check_names
from visionadapt.adapters.outputs import tensor_in
from visionadapt.adapters.reach import restored_modes
from visionadapt.adapters.slot import Place, activate, places, points_of
from visionadapt.errors import AdapterError

_Prints = dict[int, list[Tensor]]


@contextmanager
def mixed(model: nn.Module, chosen: Sequence[str | None]) -> Iterator[None]:
    """Within the context, run sample i of a batch [N, …] through adapter `chosen[i]` only; None is the bare model.

    Every layer runs once per name, on all of that name's samples together. Samples are the first axis of every input.
    Before the first call with samples of new shapes, the bare model runs on three samples, to measure which rows of
    every host's input belong to which sample. With one name for all samples, that adapter runs as it does alone.

    Raises:
        AdapterError: a name is unknown, or belongs to a method that changes the weights or the number of tokens, which
            all samples share; in the model's call: there are more or fewer samples than names, or a host of several
            adapters computes something that all samples share, such as position biases.
    """
    requested = [name for name in dict.fromkeys(chosen) if name is not None]
    if requested:
        check_names(model, *requested)
    several = len(set(chosen)) > 1
    if several:
        _check(model, requested)
    found = list(places(model))
    before = [place.slot.active for place in found]
    prepare = partial(_prepare, _Batch(len(chosen), several))
    hook = model.register_forward_pre_hook(prepare, with_kwargs=True, prepend=True)
    rows = {name: torch.tensor([i for i, other in enumerate(chosen) if other == name]) for name in requested}
    try:
        _act(found, [tuple(name for name in requested if name in place.slot and not several) for place in found])
        for place in found if several else ():
            place.slot.rows = {name: index for name, index in rows.items() if name in place.slot}
        yield
    finally:
        hook.remove()
        for place in found:
            place.slot.rows, place.slot.windows = None, None
        _act(found, before)


def _act(found: Sequence[Place], names: Sequence[tuple[str, ...]]) -> None:
    for place in found:
        activate(place, ())
    for place, active in zip(found, names, strict=True):
        activate(place, active)


def _check(model: nn.Module, requested: Sequence[str]) -> None:
    for place in places(model):
        for name, layer in place.slot.items():
            points = points_of(layer)
            shared = points in ((), ("weight",)) or getattr(layer, "changes_length", False)
            if shared and (name in requested or name in place.slot.active):
                raise AdapterError(
                    f"the adapter {name!r} at {place.slot.site} changes weights or tokens that all samples of a batch "
                    f"share; run its samples as a batch of their own, with switch"
                )


@dataclass
class _Batch:
    """A mixed batch: its number of samples, whether they use several adapters, and whether it is being measured."""

    count: int
    several: bool
    measuring: bool = False


def _prepare(batch: _Batch, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of the model: check the number of samples, and measure what every host sees of each."""
    if batch.measuring:
        return
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 0]
    if tensors and len(tensors[0]) != batch.count:
        raise AdapterError(f"{len(tensors[0])} samples need as many names, not {batch.count}")
    if not batch.several:
        return
    slots = [place.slot for place in places(model)]
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors)
    if all(shapes in slot.measured for slot in slots):
        for slot in slots:
            slot.windows = slot.measured[shapes]
        return
    wanted, batch.measuring = [slot.rows for slot in slots], True
    try:
        for slot in slots:
            slot.rows = {}
        _measure(model, args, kwargs, batch.count)
    finally:
        batch.measuring = False
        for slot, rows in zip(slots, wanted, strict=True):
            slot.rows = rows
    for slot in slots:
        slot.measured = {shapes: cast(int, slot.windows)}


def _measure(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], count: int) -> None:
    """Set every slot's `windows`: rows per sample of the host's tensors; 0 where they are not arranged by samples."""

    def run(change: Callable[[Tensor], Tensor]) -> _Prints:
        def changed(value: Any) -> Any:
            by_sample = isinstance(value, Tensor) and value.dim() > 0 and len(value) == count
            return change(value) if by_sample else value

        return _prints(model, [changed(value) for value in args], {name: changed(v) for name, v in kwargs.items()})

    with torch.no_grad(), torch.random.fork_rng(), restored_modes(model):
        model.eval()
        torch.manual_seed(0)
        alone, pair = run(lambda x: x[:1]), run(_first_and_other)
    for place in places(model):
        one, two = alone.get(id(place.host), []), pair.get(id(place.host), [])
        place.slot.windows = len(one[0]) if one and len(one) == len(two) and all(map(_by_sample, one, two)) else 0
        if len({len(print_) for print_ in one}) > 1:
            place.slot.windows = 0


def _first_and_other(x: Tensor) -> Tensor:
    other = torch.randn_like(x[:1]) if x.is_floating_point() else x[1:2]
    return torch.cat([x[:1], other])


def _by_sample(one: Tensor, two: Tensor) -> bool:
    """Return whether two samples give twice the rows of one, the first sample's first."""
    return len(two) == 2 * len(one) and torch.allclose(two[: len(one)], one, rtol=1e-3, atol=1e-4)


def _prints(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Prints:
    """Run the model, and return the mean of every row of every input and output of the hosts, by the host's id."""
    prints: _Prints = {}

    def note(host: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        x = given[0] if given else next(iter(named.values()))
        y = tensor_in(output, type(host).__name__)
        prints.setdefault(id(host), []).extend(
            t.flatten(1).float().mean(1) if t.dim() > 1 else t.float() for t in (x, y)
        )

    handles = [place.host.register_forward_hook(note, with_kwargs=True) for place in places(model)]
    try:
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return prints
