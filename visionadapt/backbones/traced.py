"""Divide any model into stem → blocks → finish by tracing its module calls, and prove it against its own forward.

A cut is possible wherever a single tensor carries everything that the rest of the forward needs. The blocks are the
finest modules between two such places; what lies between two blocks belongs to the second one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from visionadapt.backbones.anatomy import Anatomy, Arguments, Block, in_eval_mode, segments
from visionadapt.backbones.trace import BATCHES, Step, Trace, nodes_in, run
from visionadapt.core.sites import Layout

_FEW_BLOCKS = 4
_LEAST_COVERED = 0.5
"""Share of the layers that lie in blocks; below it, the division would not be worth its name."""
_WEIGHTED = (nn.Conv2d, nn.Linear)


def traced_anatomy(model: nn.Module, image_size: int, channels: int = 3) -> Anatomy | str:
    """Return the structure of a model for square images of one size, or the reason why it is one block.

    Args:
        model: pixels [B, C, S, S] → features [B, D]; its weights do not change.
        image_size: S.
        channels: C.
    """
    example, generator = next(model.parameters()), torch.Generator().manual_seed(0)
    pixels = torch.randn(max(BATCHES), channels, image_size, image_size, generator=generator).to(example)
    with torch.no_grad(), in_eval_mode(model):
        try:
            # 1) Trace down to torch's own layers, and choose the blocks.
            fine = Trace.of(model, pixels, _is_torch_layer)
            chosen = _blocks(model, fine)
            # 2) Trace again with whole blocks, so that every other module is called as a whole too.
            inside = {path for block in chosen for path in _above(block)}
            trace = Trace.of(model, pixels, lambda module, path: path not in inside)
            # 3) Divide the forward, and compare.
            return _proven(model, _anatomy(model, trace, [path for path in chosen if path in trace.separable]), pixels)
        except Exception as error:  # noqa: BLE001 - any model may do anything in its forward
            return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _is_torch_layer(module: nn.Module, _path: str) -> bool:
    return module.__module__.startswith(("torch.nn", "torch.ao.nn")) and not isinstance(module, nn.Sequential)


def _above(path: str) -> Iterator[str]:
    """Yield the paths of all modules that contain a module, the model's own (empty) first."""
    parts = path.split(".")
    for end in range(len(parts)):
        yield ".".join(parts[:end])


def _blocks(model: nn.Module, trace: Trace) -> list[str]:
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

    def __init__(self, trace: Trace, start: fx.Node, stop: fx.Node) -> None:
        super().__init__()
        self.steps = trace.steps([stop], [start])
        self.ends = (trace.nodes.index(start), trace.nodes.index(stop))
        paths = [step.target for step in self.steps if step.operation == "call_module"]
        self.called = nn.ModuleList([trace.root.get_submodule(path) for path in paths])
        self.roots = (trace.root,)  # in a tuple, so that the model is no submodule

    def forward(self, x: Tensor) -> Tensor:
        start, stop = self.ends
        result: Tensor = run(self.roots[0], self.steps, {start: x}, x)[stop]
        return result


class _Copy(nn.Module):
    """Copy the tensor at a cut, since the module behind it works in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


@dataclass(frozen=True)
class _BlockArguments:
    """Compute the further arguments of the blocks, which are the same for every image."""

    root: nn.Module
    steps: tuple[Step, ...]
    names: tuple[Mapping[str, Any], ...]

    def __call__(self) -> Arguments:
        example = next(self.root.parameters())
        values = run(self.root, self.steps, {}, example)
        made = Step(-1, "call_function", lambda *given: given, self.names, {})
        found: Arguments = run(self.root, [made], values, example)[-1]
        return found


def _anatomy(model: nn.Module, trace: Trace, chosen: Sequence[str]) -> Anatomy:
    ends = [trace.separable[path] for path in chosen]
    between = [() if result is start else (_Part(trace, result, start),) for (_, result), (start, _) in pairwise(ends)]
    shapes = [trace.shapes[result] for _, result in ends]
    blocks = tuple(
        Block(model.get_submodule(path), stage, before, *_layout(model, shape, shapes))
        for path, stage, before, shape in zip(chosen, _stages(chosen, shapes), [(), *between], shapes, strict=True)
    )
    output = next(nodes_in(trace.nodes[-1].args))
    return Anatomy(
        stem=_Part(trace, trace.nodes[0], ends[0][0]),
        blocks=blocks,
        finish=_Part(trace, ends[-1][1], output),
        layout=blocks[-1].layout or "NCHW",
        prefix_tokens=blocks[-1].prefix_tokens,
        block_arguments=_block_arguments(model, trace, chosen),
        num_features=trace.shapes[output][-1],
    )


def _block_arguments(model: nn.Module, trace: Trace, chosen: Sequence[str]) -> _BlockArguments | None:
    """Return what computes the blocks' arguments beside their tensor, by name; None where there are none."""
    place = {node: number for number, node in enumerate(trace.nodes)}
    nodes: list[fx.Node] = []
    names = []
    for path in chosen:
        args, kwargs = trace.calls[path].arguments
        bound = inspect.signature(model.get_submodule(path).forward).bind(*args, **kwargs).arguments
        first, *others = bound
        if trace.separable[path][0] not in nodes_in(bound[first]):
            raise ValueError(f"{path} takes its tensor not as its first argument")
        nodes += [node for name in others for node in nodes_in(bound[name])]
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
