"""Divide any model into stem → blocks → finish by tracing its module calls, and prove it against its own forward.

A cut is possible wherever a single tensor carries everything that the rest of the forward needs. The blocks are the
finest modules between two such places; what lies between two blocks belongs to the second one.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn

from visionadapt.backbones.anatomy import Anatomy, Arguments, Block, in_eval_mode, segments
from visionadapt.core.sites import Layout

_BATCHES = (1, 2)
"""Two batch sizes: what differs between them depends on the batch, what does not is a constant."""
_MOST_LEAF_CLASSES = 24
_FEW_BLOCKS = 4
_LEAST_COVERED = 0.5
"""Share of the layers that lie in blocks; below it, the division would not be worth its name."""
_WEIGHTED = (nn.Conv2d, nn.Linear)

_IsLeaf = Callable[[nn.Module, str], bool]


def traced_anatomy(model: nn.Module, image_size: int, channels: int = 3) -> Anatomy | str:
    """Return the structure of a model for square images of one size, or the reason why it is one block.

    Args:
        model: pixels [B, C, S, S] → features [B, D]; its weights do not change.
        image_size: S.
        channels: C.
    """
    example, generator = next(model.parameters()), torch.Generator().manual_seed(0)
    pixels = torch.randn(max(_BATCHES), channels, image_size, image_size, generator=generator).to(example)
    with torch.no_grad(), in_eval_mode(model):
        try:
            # 1) Trace down to torch's own layers, and choose the blocks.
            fine = _Trace.of(model, pixels, _is_torch_layer)
            chosen = _blocks(model, fine)
            # 2) Trace again with whole blocks, so that every other module is called as a whole too.
            inside = {path for block in chosen for path in _above(block)}
            trace = _Trace.of(model, pixels, lambda module, path: path not in inside)
            # 3) Divide the forward, and compare.
            return _proven(model, _anatomy(model, trace, [path for path in chosen if path in trace.separable]), pixels)
        except Exception as error:  # noqa: BLE001 - any model may do anything in its forward
            return (str(error).splitlines() or [type(error).__name__])[0][:160]


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

    def __init__(self, is_leaf: _IsLeaf, classes: set[type[nn.Module]]) -> None:
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
class _Step:
    """One operation of a forward; `operation` is fx's word for it, `args` and `kwargs` hold `_Reference`s."""

    number: int
    operation: str
    target: Any
    args: Any
    kwargs: Any


@dataclass
class _Trace:
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
    def of(cls, model: nn.Module, pixels: Tensor, is_leaf: _IsLeaf) -> _Trace:
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
        batches = [pixels[:size] for size in _BATCHES]
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

    def _values(self, steps: Sequence[_Step], start: int, batches: Sequence[Tensor]) -> list[dict[int, Any]]:
        """Take the steps for each batch, without values where possible; in a copy, since modules may keep results."""
        try:
            shadow = copy.deepcopy(self.root).to("meta")
            moved = [batch.to("meta") for batch in batches]
            return [_run(shadow, steps, {start: batch}, batch) for batch in moved]
        except (RuntimeError, NotImplementedError):  # a tensor that is no buffer stays where it is
            shadow = copy.deepcopy(self.root)
            return [_run(shadow, steps, {start: batch}, batch) for batch in batches]

    @cached_property
    def separable(self) -> dict[str, tuple[fx.Node, fx.Node]]:
        """The modules that take everything in a single tensor and return everything in one: input and output node."""
        live, found = self._live(), {}
        for path, call in self.calls.items():
            given = {node for node in _nodes_in(call.arguments) if node not in self.plain and node not in self.fixed}
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

    def steps(self, wanted: Iterable[fx.Node], given: Sequence[fx.Node] = ()) -> tuple[_Step, ...]:
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

    def _step(self, node: fx.Node, place: Mapping[fx.Node, int]) -> _Step:
        args, kwargs = (self.described(part, place) for part in (node.args, node.kwargs))
        return _Step(place[node], node.op, node.target, args, kwargs)

    def described(self, value: Any, place: Mapping[fx.Node, int]) -> Any:
        """Return an argument with references in place of nodes and proxies."""
        if isinstance(value, fx.Proxy):
            value = value.node
        if isinstance(value, fx.Node):
            return self.plain[value] if value in self.plain else _Reference(place[value])
        return _mapped(value, lambda part: self.described(part, place))


def _run(root: nn.Module, steps: Iterable[_Step], values: dict[int, Any], x: Tensor) -> dict[int, Any]:
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
        fits = first * _BATCHES[1] == second * _BATCHES[0]
        return (_OfBatch("size", first // _BATCHES[0]),) if fits else None
    plain = first is None or isinstance(first, bool | int | float | str | slice)
    return (first,) if plain and first == second else None


def _nodes_in(value: Any) -> Iterator[fx.Node]:
    if isinstance(value, fx.Proxy | fx.Node):
        yield value.node if isinstance(value, fx.Proxy) else value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _nodes_in(part)


def _is_torch_layer(module: nn.Module, _path: str) -> bool:
    return module.__module__.startswith(("torch.nn", "torch.ao.nn")) and not isinstance(module, nn.Sequential)


def _above(path: str) -> Iterator[str]:
    """Yield the paths of all modules that contain a module, the model's own (empty) first."""
    parts = path.split(".")
    for end in range(len(parts)):
        yield ".".join(parts[:end])


def _blocks(model: nn.Module, trace: _Trace) -> list[str]:
    """Choose the blocks: the finest separable modules with several layers, or single layers where these are few.

    A module is divided if all of its layers lie in separable parts of it. A class with an instance that cannot be
    divided is a block wherever it occurs, so that a residual unit without its shortcut counts as well.
    """
    maps = [path for path, (_, result) in trace.separable.items() if len(trace.shapes[result]) in {3, 4}]
    layers = {path: found for path in maps if (found := _layers(model, path))}
    inner: dict[str, set[str]] = {}
    for path, found in layers.items():
        for above in _above(path):
            inner.setdefault(above, set()).update(found)
    whole = {path for path in layers if len(layers[path]) == 1 or inner.get(path, set()) != layers[path]}
    atoms = {type(model.get_submodule(path)) for path in whole if len(layers[path]) > 1} - {nn.Sequential}
    chosen: list[str] = []
    for least in (2, 1):
        chosen = []
        for path in sorted(layers, key=lambda path: (trace.calls[path].start, path.count("."))):
            finest = path in whole or type(model.get_submodule(path)) in atoms
            if finest and len(layers[path]) >= least and not any(above in chosen for above in _above(path)):
                chosen.append(path)
        if len(chosen) >= _FEW_BLOCKS:
            break
    covered = set[str]().union(*(layers[path] for path in chosen))
    if len(covered) < _LEAST_COVERED * len(_layers(model)):
        raise ValueError("most of its layers lie in modules that take or return more than one tensor")
    return chosen


def _layers(model: nn.Module, path: str = "") -> set[str]:
    """Return the paths of the layers with weights in a module, itself included."""
    found = model.get_submodule(path).named_modules(prefix=path)
    return {name for name, module in found if isinstance(module, _WEIGHTED)}


class _Part(nn.Module):
    """A part of a forward as a function of the tensor at its cut; parameters are looked up in the model."""

    def __init__(self, trace: _Trace, start: fx.Node, stop: fx.Node) -> None:
        super().__init__()
        self.steps = trace.steps([stop], [start])
        self.ends = (trace.nodes.index(start), trace.nodes.index(stop))
        paths = [step.target for step in self.steps if step.operation == "call_module"]
        self.called = nn.ModuleList([trace.root.get_submodule(path) for path in paths])
        self.roots = (trace.root,)  # in a tuple, so that the model is no submodule

    def forward(self, x: Tensor) -> Tensor:
        start, stop = self.ends
        result: Tensor = _run(self.roots[0], self.steps, {start: x}, x)[stop]
        return result


class _Copy(nn.Module):
    """Copy the tensor at a cut, since the module behind it works in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


@dataclass(frozen=True)
class _BlockArguments:
    """Compute the further arguments of the blocks, which are the same for every image."""

    root: nn.Module
    steps: tuple[_Step, ...]
    names: tuple[Mapping[str, Any], ...]

    def __call__(self) -> Arguments:
        example = next(self.root.parameters())
        values = _run(self.root, self.steps, {}, example)
        made = _Step(-1, "call_function", lambda *given: given, self.names, {})
        found: Arguments = _run(self.root, [made], values, example)[-1]
        return found


def _anatomy(model: nn.Module, trace: _Trace, chosen: Sequence[str]) -> Anatomy:
    ends = [trace.separable[path] for path in chosen]
    between = [() if result is start else (_Part(trace, result, start),) for (_, result), (start, _) in pairwise(ends)]
    shapes = [trace.shapes[result] for _, result in ends]
    blocks = tuple(
        Block(model.get_submodule(path), stage, before, *_layout(model, shape, shapes))
        for path, stage, before, shape in zip(chosen, _stages(chosen, shapes), [(), *between], shapes, strict=True)
    )
    output = next(_nodes_in(trace.nodes[-1].args))
    return Anatomy(
        stem=_Part(trace, trace.nodes[0], ends[0][0]),
        blocks=blocks,
        finish=_Part(trace, ends[-1][1], output),
        layout=blocks[-1].layout or "NCHW",
        prefix_tokens=blocks[-1].prefix_tokens,
        block_arguments=_block_arguments(model, trace, chosen),
        num_features=trace.shapes[output][-1],
    )


def _block_arguments(model: nn.Module, trace: _Trace, chosen: Sequence[str]) -> _BlockArguments | None:
    """Return what computes the blocks' arguments beside their tensor, by name; None where there are none."""
    place = {node: number for number, node in enumerate(trace.nodes)}
    nodes: list[fx.Node] = []
    names = []
    for path in chosen:
        args, kwargs = trace.calls[path].arguments
        bound = inspect.signature(model.get_submodule(path).forward).bind(*args, **kwargs).arguments
        first, *others = bound
        if trace.separable[path][0] not in _nodes_in(bound[first]):
            raise ValueError(f"{path} takes its tensor not as its first argument")
        nodes += [node for name in others for node in _nodes_in(bound[name])]
        names.append({name: trace.described(bound[name], place) for name in others})
    return _BlockArguments(model, trace.steps(nodes), tuple(names)) if any(names) else None


def _stages(chosen: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Number the stages: a new one begins in another container, or at another resolution."""
    sizes = [min(shape[1:]) if len(shape) == 4 and len(set(shape[1:])) > 1 else shape[1:2] for shape in shapes]
    kinds = [(path.rpartition(".")[0], size) for path, size in zip(chosen, sizes, strict=True)]
    stages = [0]
    for earlier, later in pairwise(kinds):
        stages.append(stages[-1] + (earlier != later))
    return stages


def _layout(model: nn.Module, shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> tuple[Layout, int]:
    """Return the order of the axes of a block's output, and how many leading tokens are no patches.

    Images are square, so the two equal axes of a map are its height and width; where all three are equal, the other
    blocks decide.
    """
    if len(shape) == 3:
        squares = (count for count in range(6) if round((shape[1] - count) ** 0.5) ** 2 == shape[1] - count)
        declared = int(getattr(model, "num_prefix_tokens", 0))
        return "NLC", declared if round((shape[1] - declared) ** 0.5) ** 2 == shape[1] - declared else next(squares, 0)
    clear = [other for other in (shape, *shapes[::-1]) if len(other) == 4 and len(set(other[1:])) == 2]
    _, rows, columns, channels = clear[0] if clear else shape
    return ("NHWC" if rows == columns != channels else "NCHW"), 0


def _proven(model: nn.Module, anatomy: Anatomy, pixels: Tensor) -> Anatomy | str:
    """Return the anatomy if it gives the model's own features bit for bit; a block that works in place gets a copy."""
    blocks = list(anatomy.blocks)
    arguments = anatomy.block_arguments() if anatomy.block_arguments is not None else None
    x = pixels
    for segment in segments(anatomy):
        kept = x.clone()
        result = segment(x, {} if segment.block is None or arguments is None else arguments[segment.block])
        if not _same(x, kept):
            if segment.block is None:
                return f"its {segment.name} overwrites its input"
            block = blocks[segment.block]
            blocks[segment.block] = replace(block, before=(_Copy(), *block.before))
        x = result
    if x.ndim != 2 or not _same(x, model(pixels)):
        return "its parts one after the other do not give its own features"
    return replace(anatomy, blocks=tuple(blocks))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
