"""Several adapted copies of one backbone side by side, computed once up to where they differ."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from visionadapt.backbones.anatomy import Segment
from visionadapt.backbones.backbone import Backbone, State
from visionadapt.backbones.feature_sets import MOMENTS, FeatureSet
from visionadapt.core.sites import Site
from visionadapt.errors import BackboneError


def copies_of(backbone: Backbone, count: int) -> list[Backbone]:
    """Return copies of a backbone without adapters that hold the same tensors, so that they take no memory.

    Adapters that are attached to one of them change none of the others.
    """
    shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    return [copy.deepcopy(backbone, dict(shared)) for _ in range(count)]


class EnsembleBackbone(Backbone):
    """Normalised pixels [B, C, S, S] → the features of all members in a row, [B, D₁ + … + D_K] for K members.

    The models' own features come first, behind them those of several blocks, of the members that have them.

    The segments before `fork`, whose tensors all members share, run once. At a cut behind it, a state holds one tensor
    per member: `x` is that of the first, and `x1`, `x2`, … those of the others; likewise `moments0`, `moments1`, … of
    the members that have the features of several blocks.

    Attributes:
        members: copies of one backbone, from `copies_of`, with adapters attached or merged, and features of their own.
        fork: the first segment that is not the same in all members; the last segment if all are.
    """

    def __init__(self, members: Sequence[Backbone]) -> None:
        first = members[0]
        trainable = [parameter for member in members for parameter in member.parameters() if parameter.requires_grad]
        count = sum(member.own_features for member in members)
        super().__init__(first.name, first.model, first.anatomy, first.config, first.weights_hash, count)
        self.num_features = sum(member.num_features for member in members)
        for parameter in trainable:
            parameter.requires_grad_(True)
        self.members = nn.ModuleList(members)
        self.segments = tuple(map(_together, zip(*(member.segments for member in members), strict=True)))
        self.fork = self._fork()

    def run(self, state: Mapping[str, Tensor], start: int, stop: int, *, own: bool = False) -> State:
        """Run the segments `start` … `stop` − 1 of every member, as `Backbone.run` does for one."""
        if stop <= self.fork:
            return self._shared().run(state, start, stop, own=own)
        if start == len(self.segments):
            return dict(state)
        if start < self.fork:
            state, start = self._shared().run(state, start, self.fork, own=own), self.fork
        found: State = {}
        for place, member in enumerate(self._each()):
            end = member.run(self._state_of(place, state), start, stop, own=own)
            found[_name(place)] = end["x"]
            if MOMENTS in end:
                found[f"{MOMENTS}{place}"] = end[MOMENTS]
        return {"x": self.in_a_row([*found.values()])} if stop == len(self.segments) else found

    def in_a_row(self, parts: Sequence[Tensor]) -> Tensor:
        """Put tensors [*, Dₖ] of the members together as their features are: [*, D₁ + … + D_K]."""
        own = [part[..., : member.own_features] for part, member in zip(parts, self._each(), strict=True)]
        others = [part[..., member.own_features :] for part, member in zip(parts, self._each(), strict=True)]
        return torch.cat([*own, *others], dim=-1)

    def add_moments(self, state: State, segment: Segment) -> None:
        """Append the moments of a segment's output to those of each member that has them as features."""
        for place, member in enumerate(self._each()):
            own = self._state_of(place, state)
            member.add_moments(own, segment)
            if MOMENTS in own:
                state[f"{MOMENTS}{place}"] = own[MOMENTS]

    @property
    def member_features(self) -> tuple[FeatureSet, ...]:
        """The features of each member."""
        return tuple(member.feature_set for member in self._each())

    def features_at(self, cut: int) -> str:
        """Return which features a state at a cut is for; before the fork, as for one backbone."""
        if cut > self.fork:
            return "+".join(self.member_features)
        tapped = self._shared()._tapped
        return "blocks" if any(segment.block in tapped for segment in self.segments[:cut]) else "last"

    def use_features(self, features: FeatureSet) -> None:
        """Refuse any others than those of its members."""
        if features != self.feature_set:
            raise BackboneError("an ensemble has the features of its members")

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

    def _each(self) -> list[Backbone]:
        return [self._member(place) for place in range(len(self.members))]

    def _shared(self) -> Backbone:
        """Return the member that runs what all share: one that collects moments, if there is one."""
        return next((member for member in self._each() if member.feature_set == "blocks"), self._member(0))

    def _state_of(self, place: int, state: Mapping[str, Tensor]) -> State:
        """Return the tensors of a state that are those of one member, by the names that it gives them."""
        own = {"x": state.get(_name(place), state["x"])}
        moments = state.get(f"{MOMENTS}{place}", state.get(MOMENTS))
        return own if moments is None or self._member(place).feature_set == "last" else {**own, MOMENTS: moments}

    def _fork(self) -> int:
        """Return the first segment with a tensor that not all members share; 0 if such a tensor is in no segment.

        The last one at most, where the features of all are put in a row.
        """
        tensors = [_tensors(member) for member in self.members]
        own = set[int]().union(*tensors) - tensors[0].intersection(*tensors)
        owner = {
            tensor: place
            for place, segment in reversed([*enumerate(self.segments)])
            for part in segment.parts
            if isinstance(part, nn.Module)
            for tensor in _tensors(part)
        }
        return min((owner.get(tensor, 0) for tensor in own), default=len(self.segments) - 1)

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
