"""Distributed training: sums over all processes and a common exit. In a single process, everything is a no-op.

`torchrun` starts the processes and assigns their ranks. Only rank 0 writes files and prints.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from visionadapt.errors import PeerError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed.distributed_c10d import Store

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others before it considers them lost."""

_END = "end"
_T = TypeVar("_T")
_store: list[Store] = []


def launched() -> int:
    """Return how many processes `torchrun` has started for this run; 1 without `torchrun`."""
    known = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if known else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    if (group := _joined()) is not None:
        return int(group.get_rank())
    return int(os.environ["RANK"]) if launched() > 1 else 0


def world_size() -> int:
    """Return how many processes have joined."""
    return 1 if (group := _joined()) is None else int(group.get_world_size())


def is_first() -> bool:
    """Return whether this process writes files and prints."""
    return rank() == 0


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Join the processes started by `torchrun` within the block: gloo between CPUs, NCCL between GPUs.

    Each process uses the GPU of its local rank: within the block, `cuda` is that GPU. Raise UsageError if there are
    more processes than GPUs, or `--device` cannot be shared; PeerError if the other processes do not join.
    """
    if launched() == 1 or _joined() is not None:
        yield
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = _backend(device)
    with _among_peers():
        store, number, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        _store[:] = [PrefixStore("visionadapt", store)]
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=number, world_size=size, timeout=TIMEOUT)
    yield
    dist.destroy_process_group()
    _store.clear()


def part_of(rows: Sequence[int]) -> range:
    """Return the consecutive places of a global batch that belong to this process; may be empty.

    >>> part_of([7, 3, 9])
    range(0, 3)
    """
    size, number = world_size(), rank()
    return range(len(rows) * number // size, len(rows) * (number + 1) // size)


def share_of(rows: Sequence[int]) -> Sequence[int]:
    """Return every `world_size`-th row, starting at this rank: for work in any order."""
    return rows[rank() :: world_size()] if world_size() > 1 else rows


def share_of_machine(rows: Sequence[int]) -> Sequence[int]:
    """Return `share_of` among the processes on this machine only."""
    size, number = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    return rows[number::size] if world_size() > 1 else rows


def sum_of(values: Tensor) -> Tensor:
    """Return the element-wise sum of a tensor over all processes, bit-identical in each; all shapes must match."""
    if world_size() == 1:
        return values
    summed = values.clone() if values.device.type == "cuda" else values.cpu().clone()
    with _among_peers():
        _joined().all_reduce(summed)
    return summed.to(values.device)


def sum_gradients(parameters: Sequence[nn.Parameter], *values: Tensor) -> list[Tensor]:
    """Replace every gradient by its sum over all processes; return the sums of some scalars.

    Everything goes through one flat buffer, with a flag per gradient. One that is None in all processes stays None.
    """
    if world_size() == 1:
        return list(values)
    import torch

    device = parameters[0].device
    there = [float(parameter.grad is not None) for parameter in parameters]
    flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    sums = sum_of(torch.cat([*flat, torch.tensor(there, device=device), *(v[None] for v in values)]))
    ends = len(sums) - len(values)
    counts = sums[ends - len(there) : ends].tolist()
    start = 0
    for parameter, count in zip(parameters, counts, strict=False):
        if count:
            parameter.grad = sums[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()
    return list(sums[ends:])


def gathered(value: _T) -> list[_T]:
    """Return the values of all processes, in rank order."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    with _among_peers():
        _joined().all_gather_object(found, value)
    return found


def from_first(make: Callable[[], _T]) -> _T:
    """Call `make` in the first process only, and return its result in every process."""
    if world_size() == 1:
        return make()
    box: list[Any] = [make() if is_first() else None]
    with _among_peers():
        _joined().broadcast_object_list(box)
    made: _T = box[0]
    return made


def wait_for_all() -> None:
    """Wait until every process has reached this call."""
    gathered(None)


def check_alike(facts: Mapping[str, object]) -> None:
    """Raise UsageError if a value differs between processes; the message names the value and the processes."""
    for number, other in enumerate(gathered(dict(facts))):
        for name, value in facts.items():
            if other[name] != value:
                raise UsageError(
                    f"process {rank()} has {name} {value!r}, and process {number} {other[name]!r}; give all machines "
                    "the same images, weights and libraries"
                )


def ending(message: str, code: int) -> tuple[bool, int]:
    """Return whether this process reports why the run ends, and the common exit code.

    The first process to fail reports. Before the processes have joined, all fail alike, and rank 0 reports.
    """
    if launched() == 1:
        return True, code
    if not _store:
        return is_first(), code
    own = json.dumps([rank(), message, code])
    try:
        first = _store[0].compare_set(_END, "", own).decode()
    except RuntimeError:  # the process with the store has ended and reported why
        return False, code
    return first == own, int(json.loads(first)[2])


def is_ending() -> bool:
    """Return whether a process has already reported why the run ends."""
    try:
        return bool(_store) and _store[0].check([_END])
    except RuntimeError:
        return True


def _joined() -> Any:
    """Return `torch.distributed` if this process has joined others; None otherwise, without loading torch."""
    group = sys.modules.get("torch.distributed")
    return group if group is not None and group.is_available() and group.is_initialized() else None


def _backend(device: str) -> str:
    import torch

    if device in {"cpu", "mps"} or not torch.cuda.is_available():
        return "gloo"
    if ":" in device:
        raise UsageError(f"--device {device} is one GPU, and each process takes its own; give --device cuda")
    place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if place >= there:
        raise UsageError(
            f"this machine has {there} GPUs; start torchrun with --nproc-per-node {there}, or --device cpu"
        )
    torch.cuda.set_device(place)
    return "cpu:gloo,cuda:nccl"


@contextmanager
def _among_peers() -> Iterator[None]:
    """Turn torch's errors about lost processes into a PeerError."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(
            "another process of this run has ended or cannot be reached; see what it says, and go on with --resume"
        ) from error
