"""Several adapted copies of one backbone side by side, computed once up to where they differ."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from visionadapt.backbones.anatomy import Segment
from visionadapt.backbones.backbone import Backbone, State
from visionadapt.backbones.feature_sets import FeatureSet
from visionadapt.core.sites import Site
from visionadapt.errors import BackboneError


def copies_of(backbone: Backbone, count: int) -> list[Backbone]:
    """Return copies of a backbone without adapters that hold the same tensors, so that they take no memory.

    Adapters that are attached to one of them change none of the others.
    """
    shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    return [copy.deepcopy(backbone, dict(shared)) for _ in range(count)]


class EnsembleBackbone(Backbone):
    """Normalised pixels [B, C, S, S] → the pooled features of all members in a row, [B, K · D] for K members.

    The segments before `fork`, whose tensors all members share, run once. At a cut behind it, a state holds one tensor
    per member: `x` is that of the first, and `x1`, `x2`, … those of the others.

    Attributes:
        members: copies of one backbone, from `copies_of`, with adapters attached or merged.
        fork: the first segment that is not the same in all members; the number of segments if all are.
    """

    def __init__(self, members: Sequence[Backbone]) -> None:
        first = members[0]
        if any(member.feature_set != "last" for member in members):
            raise BackboneError("an ensemble takes the last features of its members alone; use_features('last') first")
        trainable = [parameter for member in members for parameter in member.parameters() if parameter.requires_grad]
        count = sum(member.own_features for member in members)
        super().__init__(first.name, first.model, first.anatomy, first.config, first.weights_hash, count)
        for parameter in trainable:
            parameter.requires_grad_(True)
        self.members = nn.ModuleList(members)
        self.segments = tuple(map(_together, zip(*(member.segments for member in members), strict=True)))
        self.fork = self._fork()

    def run(self, state: Mapping[str, Tensor], start: int, stop: int) -> State:
        """Run the segments `start` … `stop` − 1 of every member, as `Backbone.run` does for one."""
        first = self._member(0)
        if stop <= self.fork and stop < len(self.segments):
            return first.run(state, start, stop)
        if start < self.fork:
            state, start = first.run(state, start, self.fork), self.fork
        found = {
            _name(place): self._member(place).run({"x": state.get(_name(place), state["x"])}, start, stop)["x"]
            for place in range(len(self.members))
        }
        return {"x": torch.cat([*found.values()], dim=1)} if stop == len(self.segments) else found

    def use_features(self, features: FeatureSet) -> None:
        """Refuse any other features than the last ones."""
        if features != "last":
            raise BackboneError("an ensemble has the last features of its members alone")

    def sites(self) -> list[Site]:
        """Return the sites of the first member."""
        return self._member(0).sites()

    def train(self, mode: bool = True) -> EnsembleBackbone:
        """Set the mode of each member as its own `train` does."""
        self.training = mode
        members = self._modules.get("members")  # not there yet while the backbone is made
        for member in [] if members is None else members.children():
            member.train(mode)
        return self

    def _member(self, place: int) -> Backbone:
        member = self.members[place]
        assert isinstance(member, Backbone)
        return member

    def _fork(self) -> int:
        """Return the first segment with a tensor that not all members share; 0 if such a tensor is in no segment."""
        tensors = [_tensors(member) for member in self.members]
        own = set[int]().union(*tensors) - tensors[0].intersection(*tensors)
        owner = {
            tensor: place
            for place, segment in reversed([*enumerate(self.segments)])
            for part in segment.parts
            if isinstance(part, nn.Module)
            for tensor in _tensors(part)
        }
        return min((owner.get(tensor, 0) for tensor in own), default=len(self.segments))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EnsembleBackbone:
        """Move or convert all tensors; buffers that members share are shared afterwards too, as parameters are."""
        owners: dict[int, list[tuple[nn.Module, str]]] = {}
        for module, name, buffer in _buffers(self):
            owners.setdefault(id(buffer), []).append((module, name))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for (module, name), *others in owners.values():
            for other, same in others:
                other._buffers[same] = module._buffers[name]
        return self


def _buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield module, name, buffer


def _name(place: int) -> str:
    return f"x{place}" if place else "x"


def _tensors(module: nn.Module) -> set[int]:
    return {id(tensor) for tensor in (*module.parameters(), *module.buffers())}


def _together(segments: Sequence[Segment]) -> Segment:
    """Return a segment with the parts of all members, each once: it tells what belongs to it, and does not run."""
    return replace(segments[0], parts=tuple(dict.fromkeys(part for segment in segments for part in segment.parts)))
