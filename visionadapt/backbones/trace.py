"""Record a model's forward as single operations, and which module each of them belongs to."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn

BATCHES = (1, 2)
"""Two batch sizes: what differs between them depends on the batch, what does not is a constant."""

_MOST_LEAF_CLASSES = 24

IsLeaf = Callable[[nn.Module, str], bool]
"""Whether a module, at its path, is called as a whole."""


@dataclass
class _Call:
    """A call of a module: its path and arguments, and the positions of the nodes inside."""

    path: str
    arguments: tuple[Any, Mapping[str, Any]]
    start: int
    stop: int = -1
    result: Any = None


class _Tracer(fx.Tracer):
    """Record which nodes each module call consists of; where tracing fails, `open` ends with the module."""

    def __init__(self, is_leaf: IsLeaf, classes: set[type[nn.Module]]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))  # type: ignore[no-untyped-call]
        self._is_leaf, self._classes = is_leaf, classes
        self.calls: list[_Call] = []
        self.open: list[nn.Module] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self._classes or self._is_leaf(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = _Call(self.path_of_module(m), (args, kwargs), len(self.graph.nodes))
        self.calls.append(call)
        self.open.append(m)
        call.result = super().call_module(m, forward, args, kwargs)
        self.open.pop()
        call.stop = len(self.graph.nodes)
        return call.result


@dataclass(frozen=True)
class _Reference:
    """The value of an earlier step, by its number."""

    step: int


@dataclass(frozen=True)
class _OfBatch:
    """A value that depends on the batch: `times` its size, or its number format or device."""

    kind: str
    times: int = 1

    def of(self, x: Tensor) -> Any:
        """Return it for the tensor at a cut."""
        return self.times * x.shape[0] if self.kind == "size" else getattr(x, self.kind)


@dataclass(frozen=True)
class Step:
    """One operation of a forward; `operation` is fx's word for it, `args` and `kwargs` hold `_Reference`s."""

    number: int
    operation: str
    target: Any
    args: Any
    kwargs: Any


@dataclass
class Trace:
    """A traced forward and what its nodes hold.

    Attributes:
        root: the model.
        nodes: in the order of their execution.
        calls: of the modules that are called exactly once, by path.
        plain: values of the nodes that hold no tensor and do not depend on the image.
        fixed: the nodes whose tensor does not depend on the image.
        shapes: of the tensors, for one image.
    """

    root: nn.Module
    nodes: list[fx.Node]
    calls: dict[str, _Call]
    plain: dict[fx.Node, Any]
    fixed: set[fx.Node]
    shapes: dict[fx.Node, tuple[int, ...]]

    @classmethod
    def of(cls, model: nn.Module, pixels: Tensor, is_leaf: IsLeaf) -> Trace:
        """Trace a model; a class of modules whose own forward cannot be traced is called as a whole."""
        classes: set[type[nn.Module]] = set(get_notrace_modules())  # type: ignore[no-untyped-call]
        given = list(inspect.signature(model.forward).parameters.values())[1:]
        defaults = {item.name: item.default for item in given if item.default is not item.empty}
        for _ in range(_MOST_LEAF_CLASSES):
            tracer = _Tracer(is_leaf, classes)
            try:
                graph = tracer.trace(model, concrete_args=defaults)
            except Exception:
                if not tracer.open:
                    raise
                classes.add(type(tracer.open[-1]))
                continue
            paths = [call.path for call in tracer.calls]
            once = {call.path: call for call in tracer.calls if paths.count(call.path) == 1}
            others = [node for node in graph.nodes if node.op == "placeholder"][1:]
            plain: dict[fx.Node, Any] = dict(zip(others, defaults.values(), strict=False))
            trace = cls(model, list(graph.nodes), once, plain, set(), {})
            trace._measure(pixels)
            return trace
        raise ValueError(f"more than {_MOST_LEAF_CLASSES} classes of its modules cannot be traced")

    def _measure(self, pixels: Tensor) -> None:
        """Run the nodes for two batch sizes."""
        inputs, place = self.nodes[0], {node: number for number, node in enumerate(self.nodes)}
        steps = [self._step(node, place) for node in self.nodes if node.op not in {"placeholder", "output"}]
        batches = [pixels[:size] for size in BATCHES]
        first, second = self._values(steps, place[inputs], batches)
        self.shapes[inputs] = tuple(batches[0].shape)
        for step in steps:
            node, values = self.nodes[step.number], (first[step.number], second[step.number])
            if isinstance(values[0], Tensor):
                self.shapes[node] = tuple(values[0].shape)
                if all(other in self.fixed or other in self.plain for other in node.all_input_nodes):
                    self.fixed.add(node)
            elif (found := _plain(*values)) is not None:
                self.plain[node] = found[0]

    def _values(self, steps: Sequence[Step], start: int, batches: Sequence[Tensor]) -> list[dict[int, Any]]:
        """Take the steps for each batch, without values where possible; in a copy, since modules may keep results."""
        try:
            shadow = copy.deepcopy(self.root).to("meta")
            moved = [batch.to("meta") for batch in batches]
            return [run(shadow, steps, {start: batch}, batch) for batch in moved]
        except (RuntimeError, NotImplementedError):  # a tensor that is no buffer stays where it is
            shadow = copy.deepcopy(self.root)
            return [run(shadow, steps, {start: batch}, batch) for batch in batches]

    @cached_property
    def separable(self) -> dict[str, tuple[fx.Node, fx.Node]]:
        """The modules that take everything in a single tensor and return everything in one: input and output node."""
        live, found = self._live(), {}
        for path, call in self.calls.items():
            given = {node for node in nodes_in(call.arguments) if node not in self.plain and node not in self.fixed}
            result = call.result.node if isinstance(call.result, fx.Proxy) else None
            if result is None or result not in self.shapes or len(given) != 1 or not given <= self.shapes.keys():
                continue
            if live[call.start] == given and live[call.stop] == {result}:
                found[path] = (given.pop(), result)
        return found

    def _live(self) -> list[set[fx.Node]]:
        """Before each position, the nodes that exist, depend on the image, and are still needed."""
        place = {node: number for number, node in enumerate(self.nodes)}
        last = {node: max((place[user] for user in node.users), default=-1) for node in self.nodes}
        live: list[set[fx.Node]] = [set()]
        for number, node in enumerate(self.nodes):
            now = {other for other in live[-1] if last[other] > number}
            varies = node not in self.plain and node not in self.fixed
            live.append({*now, node} if varies and last[node] > number else now)
        return live

    def steps(self, wanted: Iterable[fx.Node], given: Sequence[fx.Node] = ()) -> tuple[Step, ...]:
        """Return what computes some nodes from others, and from parameters of the model."""
        needed: set[fx.Node] = set()
        waiting = list(wanted)
        while waiting:
            node = waiting.pop()
            if node in needed or node in given or node in self.plain:
                continue
            if node.op == "placeholder":
                raise ValueError("a part of its forward needs the pixels beside the tensor at its cut")
            needed.add(node)
            waiting.extend(node.all_input_nodes)
        place = {node: number for number, node in enumerate(self.nodes)}
        return tuple(self._step(node, place) for node in self.nodes if node in needed)

    def _step(self, node: fx.Node, place: Mapping[fx.Node, int]) -> Step:
        args, kwargs = (self.described(part, place) for part in (node.args, node.kwargs))
        return Step(place[node], node.op, node.target, args, kwargs)

    def described(self, value: Any, place: Mapping[fx.Node, int]) -> Any:
        """Return an argument with references in place of nodes and proxies."""
        if isinstance(value, fx.Proxy):
            value = value.node
        if isinstance(value, fx.Node):
            return self.plain[value] if value in self.plain else _Reference(place[value])
        return _mapped(value, lambda part: self.described(part, place))


def run(root: nn.Module, steps: Iterable[Step], values: dict[int, Any], x: Tensor) -> dict[int, Any]:
    """Take steps in a model; `values` of earlier steps are added to. `x` is the tensor at the cut."""

    def resolved(value: Any) -> Any:
        if isinstance(value, _Reference):
            return values[value.step]
        return value.of(x) if isinstance(value, _OfBatch) else _mapped(value, resolved)

    for step in steps:
        args, kwargs = resolved(step.args), resolved(step.kwargs)
        if step.operation == "get_attr":
            values[step.number] = operator.attrgetter(step.target)(root)
        elif step.operation == "call_module":
            values[step.number] = root.get_submodule(step.target)(*args, **kwargs)
        elif step.operation == "call_method":
            values[step.number] = getattr(args[0], step.target)(*args[1:], **kwargs)
        else:
            values[step.number] = step.target(*args, **kwargs)
    return values


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to the elements of a list, tuple, mapping or slice; return anything else."""
    if isinstance(value, Mapping):
        return {key: function(part) for key, part in value.items()}
    if isinstance(value, list):
        return [function(part) for part in value]
    if isinstance(value, tuple):
        return tuple(function(part) for part in value)
    if isinstance(value, slice):
        return slice(*(function(part) for part in (value.start, value.stop, value.step)))
    return value


def _plain(first: Any, second: Any) -> tuple[Any] | None:
    """Return what stands for a value that is no tensor, given it for both batch sizes; None if nothing can."""
    for kind, name in ((torch.dtype, "dtype"), (torch.device, "device")):
        if isinstance(first, kind):
            return (_OfBatch(name),)
    if isinstance(first, tuple | list) and len(first) == len(second):
        parts = [_plain(*pair) for pair in zip(first, second, strict=True)]
        return None if None in parts else (tuple(part[0] for part in parts if part is not None),)
    if isinstance(first, int) and not isinstance(first, bool) and first != second:
        fits = first * BATCHES[1] == second * BATCHES[0]
        return (_OfBatch("size", first // BATCHES[0]),) if fits else None
    plain = first is None or isinstance(first, bool | int | float | str | slice)
    return (first,) if plain and first == second else None


def nodes_in(value: Any) -> Iterator[fx.Node]:
    if isinstance(value, fx.Proxy | fx.Node):
        yield value.node if isinstance(value, fx.Proxy) else value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from nodes_in(part)
