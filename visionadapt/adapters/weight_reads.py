"""Find out from a module's code which weights its forward reads without calling the layers that hold them."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

from torch import nn

_HARMLESS = ("dtype", "device", "shape", "requires_grad")


def read_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose weight another module's forward reads, as in `F.linear(x, self.qkv.weight)`.

    Only the code of the classes is looked at, so a read may be missed, or may be one that is never executed.
    """
    for parent in model.modules():
        for name in _weights_read(cast(Any, type(parent))):
            child = parent._modules.get(name)
            if child is not None:
                yield child


@cache
def _weights_read(kind: type[nn.Module]) -> frozenset[str]:
    """Return the members whose `weight` is read in a class's forward or in methods that it names."""
    if kind.__module__.startswith("torch.nn."):  # its fast paths step back where a layer has hooks
        return frozenset()
    pending, seen, found = ["forward"], set(dir(nn.Module)) - {"forward"}, set()
    while pending:
        method = pending.pop()
        code = getattr(inspect.unwrap(getattr(kind, method, None)), "__code__", None)  # type: ignore[arg-type]
        if method in seen or code is None:
            continue
        seen.add(method)
        chain = [
            step.argval if step.opname in ("LOAD_ATTR", "LOAD_METHOD") else "" for step in dis.get_instructions(code)
        ]
        pending += [name for name in chain if name]
        for member, attribute, after in zip(chain, chain[1:], [*chain[2:], ""], strict=False):
            if member and attribute == "weight" and after not in _HARMLESS:
                found.add(member)
    return frozenset(found)
