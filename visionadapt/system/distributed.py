"""Several processes that train one model: sums over all of them, and one end for all. In one process it does nothing.

`torchrun` starts the processes and tells each its rank. What rank 0 alone does is to write and to speak.
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
"""How long a process waits for the others before it takes them for lost."""

_END = "end"
_T = TypeVar("_T")
_store: list[Store] = []


def launched() -> int:
    """How many processes `torchrun` has started for this run; 1 where it was not `torchrun`."""
    known = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if known else 1


def rank() -> int:
    """This process's number, from 0 on."""
    if _joined():
        import torch.distributed as dist

        return dist.get_rank()
    return int(os.environ["RANK"]) if launched() > 1 else 0


def world_size() -> int:
    """How many processes train together: those that have joined."""
    if not _joined():
        return 1
    import torch.distributed as dist

    return dist.get_world_size()


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Join the processes that `torchrun` has started for the time of the block: gloo between CPUs, NCCL between GPUs.

    Each process takes the GPU of its local rank: `cuda` means that one within the block.

    Args:
        device: where this run computes, as `--device` says.

    Raises:
        UsageError: there are more processes than GPUs, or the device is one that they cannot share.
        PeerError: the others do not come.
    """
    if launched() == 1 or _joined():
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
    """Which places of a global batch are this process's: consecutive ones, none where there are fewer than processes.

    >>> part_of([7, 3, 9])
    range(0, 3)
    """
    size, number = world_size(), rank()
    return range(len(rows) * number // size, len(rows) * (number + 1) // size)


def share_of(rows: Sequence[int]) -> Sequence[int]:
    """Every so many-th of some rows, this process's first: for work whose order does not matter."""
    return rows[rank() :: world_size()] if world_size() > 1 else rows


def share_of_machine(rows: Sequence[int]) -> Sequence[int]:
    """`share_of` among the processes on this machine alone."""
    size, number = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    return rows[number::size] if world_size() > 1 else rows


def sum_of(values: Tensor) -> Tensor:
    """The element-wise sum of a tensor of one shape over all processes, the same bits in each."""
    if world_size() == 1:
        return values
    import torch.distributed as dist

    summed = values.clone() if values.device.type == "cuda" else values.cpu().clone()
    with _among_peers():
        dist.all_reduce(summed)
    return summed.to(values.device)


def sum_gradients(parameters: Sequence[nn.Parameter], *values: float) -> list[float]:
    """Replace every gradient by its sum over all processes; return the sums of some values.

    All of it goes through one flat buffer. A gradient that is None in every process stays None: that a parameter got
    none, here or anywhere, is told by a flag of its own.
    """
    if world_size() == 1:
        return list(values)
    import torch

    device = parameters[0].device
    there = [float(parameter.grad is not None) for parameter in parameters]
    flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    sums = sum_of(torch.cat([*flat, torch.tensor([*there, *values], device=device)]))
    counts = sums[len(sums) - len(there) - len(values) :].tolist()
    start = 0
    for parameter, count in zip(parameters, counts, strict=False):
        if count:
            parameter.grad = sums[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()
    return counts[len(there) :]


def gathered(value: _T) -> list[_T]:
    """What each process gives, in the order of the ranks, in every process."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    found: list[Any] = [None] * world_size()
    with _among_peers():
        dist.all_gather_object(found, value)
    return found


def from_first(make: Callable[[], _T]) -> _T:
    """What the first process makes, in every process; the others wait for it and make nothing."""
    if world_size() == 1:
        return make()
    import torch.distributed as dist

    box: list[Any] = [make() if is_first() else None]
    with _among_peers():
        dist.broadcast_object_list(box)
    made: _T = box[0]
    return made


def wait_for_all() -> None:
    """Go on when every process has come here."""
    gathered(None)


def check_alike(facts: Mapping[str, object]) -> None:
    """Raise UsageError where a process has another value than the first one; the message names what and where."""
    for number, other in enumerate(gathered(dict(facts))):
        for name, value in facts.items():
            if other[name] != value:
                raise UsageError(
                    f"process {rank()} has {name} {value!r}, and process {number} {other[name]!r}; give all machines "
                    "the same pictures, weights and libraries"
                )


def ending(message: str, code: int) -> tuple[bool, int]:
    """Whether this process tells why the run ends, and the exit code of all: the first one to end badly tells.

    Before the processes have joined they all fail alike, and the first rank tells.
    """
    if launched() == 1:
        return True, code
    if not _store:
        return is_first(), code
    own = json.dumps([rank(), message, code])
    try:
        first = _store[0].compare_set(_END, "", own).decode()
    except RuntimeError:  # the process that kept the store has ended, and has told why
        return False, code
    return first == own, int(json.loads(first)[2])


def is_ending() -> bool:
    """Whether another process has told already why the run ends."""
    try:
        return bool(_store) and _store[0].check([_END])
    except RuntimeError:
        return True


def _joined() -> bool:
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized()


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
    """Turn what torch raises where another process is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(
            "another process of this run has ended or cannot be reached; see what it says, and go on with --resume"
        ) from error
