"""A frozen backbone that can be run from any cut to any other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionadapt.backbones.anatomy import Anatomy, Segment, in_eval_mode, segments
from visionadapt.backbones.data_config import DataConfig
from visionadapt.backbones.feature_sets import MOMENTS, FeatureSet, moments, tapped_blocks
from visionadapt.backbones.sites import find_sites
from visionadapt.core.sites import Site
from visionadapt.errors import BackboneError

State = dict[str, Tensor]


class Backbone(nn.Module):
    """A timm model divided into segments: stem, block 0 … block n−1, finish.

    A *cut* is an int p: "before segment p". Cut 0 is the pixels, 1 is after the stem, 1 + k is before block k, and
    `len(segments)` is the pooled pre-logits features.

    Attributes:
        name: the model's name in timm.
        model: the timm module, without a classifier.
        weights_hash: SHA-256 of the weights as loaded (see `weights.weights_hash`).
        own_features: the number of pooled features that the model itself has.
        num_features: D, the number of features that a head gets: more than `own_features` with the set `blocks`.
        feature_set: `last` or `blocks`; `use_features` changes it.
        config: the preprocessing that the model expects.
        anatomy: the structure of the model.
        segments: the parts between adjacent cuts.
        checkpointing: whether the backward pass recomputes each block instead of storing its activations: less memory,
            more time (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). False by default.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        anatomy: Anatomy,
        config: DataConfig,
        weights_hash: str,
        num_features: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.anatomy = anatomy
        self.config = config
        self.weights_hash = weights_hash
        self.own_features = self.num_features = num_features
        self.feature_set: FeatureSet = "last"
        self._tapped: frozenset[int] = frozenset()
        self.segments: tuple[Segment, ...] = segments(anatomy)
        self.checkpointing = False
        self._own_modules = tuple(model.modules())
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute pooled features [B, D] from normalised pixels, float [B, C, S, S], C and S as in `config`.

        Raises:
            BackboneError: the pixels have another shape.
        """
        return self.run({"x": pixels}, 0, len(self.segments))["x"]

    def run(self, state: Mapping[str, Tensor], start: int, stop: int, *, own: bool = False) -> State:
        """Run the segments `start` … `stop` − 1 on the state at cut `start`; return the state at cut `stop`.

        A state is named tensors with the batch as first axis: `{"x": …}`, at cut 0 the normalised pixels [B, C, S, S],
        at the last cut the features [B, D]; with the feature set `blocks`, the moments so far are a tensor of their
        own in between, which `own` leaves out. Tensors that are the same for every image (rotary embeddings, a shared
        position bias) are not part of it; each run computes them again.

        Raises:
            BackboneError: the pixels have another shape.
            ValueError: the cuts do not exist, or `stop` is before `start`.
        """
        if not 0 <= start <= stop <= len(self.segments):
            raise ValueError(f"cuts must satisfy 0 ≤ start ≤ stop ≤ {len(self.segments)}, not {start} and {stop}")
        if start == 0:
            self._check_pixels(state["x"])
        state = dict(state)
        arguments = self._block_arguments(start, stop)
        for segment in self.segments[start:stop]:
            given = {} if segment.block is None or arguments is None else arguments[segment.block]
            again = self.checkpointing and segment.block is not None and torch.is_grad_enabled()
            x = state["x"]
            state["x"] = checkpoint(segment, x, given, use_reentrant=False) if again else segment(x, given)
            if not own:
                self.add_moments(state, segment)
        if stop == len(self.segments) and MOMENTS in state:
            found = state.pop(MOMENTS)
            state["x"] = torch.cat([state["x"], found], dim=1) if self._tapped and not own else state["x"]
        return state

    def use_features(self, features: FeatureSet) -> None:
        """Set what `forward` returns: the model's own pooled features, or with `blocks` further ones behind them.

        These are mean and standard deviation of each channel, over all positions, after the blocks of `tapped_blocks`.
        A model that cannot be divided has its own features only.
        """
        if features != self.feature_set:
            self.feature_set = features
            self._tapped = tapped_blocks(self.anatomy) if features == "blocks" else frozenset()
            with torch.no_grad(), in_eval_mode(self):
                self.num_features = self(self.blank_pixels()).shape[1]

    @property
    def member_features(self) -> tuple[FeatureSet, ...]:
        """The features of each member of an ensemble; none of a single backbone."""
        return ()

    def features_at(self, cut: int) -> str:
        """Return which features a state at a cut is for: states of different ones may hold other tensors."""
        return self.feature_set

    def add_moments(self, state: State, segment: Segment) -> None:
        """Append the moments of a segment's output, if they are features, to those of the segments before it."""
        if segment.block is None or segment.block not in self._tapped:
            return
        block = self.anatomy.blocks[segment.block]
        own = block.layout is not None
        layout = block.layout or self.anatomy.layout
        found = moments(state["x"], layout, block.prefix_tokens if own else self.anatomy.prefix_tokens)
        state[MOMENTS] = torch.cat([state[MOMENTS], found], dim=1) if MOMENTS in state else found

    def sites(self) -> list[Site]:
        """Return every site where an adapter can be attached, in the model's order; measured once, on a blank image."""
        return list(self._sites)

    def cut_shapes(self) -> list[dict[str, tuple[int, ...]]]:
        """Return the shape, without the batch, of each tensor of the state at every cut; measured on a blank image."""
        state: State = {"x": self.blank_pixels()}
        shapes = []
        with torch.no_grad(), in_eval_mode(self):
            for cut in range(len(self.segments) + 1):
                shapes.append({name: tuple(tensor.shape[1:]) for name, tensor in state.items()})
                if cut < len(self.segments):
                    state = self.run(state, cut, cut + 1)
        return shapes

    def blank_pixels(self, batch: int = 1) -> Tensor:
        """Make zeros [batch, C, S, S] with the device and dtype of the weights."""
        example = next(self.model.parameters())
        size = self.config.image_size
        return torch.zeros(batch, self.config.channels, size, size, device=example.device, dtype=example.dtype)

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        return find_sites(self.model, self.anatomy, lambda: self(self.blank_pixels()))

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode of attached modules, and of the model's own modules that have trainable parameters."""
        own = set(map(id, self._own_modules))
        for module in self.modules():
            training = mode and (id(module) not in own or _learns(module))
            if module.training != training:  # setting an attribute of a module is slow, and this runs twice per epoch
                module.training = training
        return self

    def _check_pixels(self, pixels: Tensor) -> None:
        size, channels = self.config.image_size, self.config.channels
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (channels, size, size):
            raise BackboneError(
                f"{self.name} was loaded for pixels [batch, {channels}, {size}, {size}], got {list(pixels.shape)}: "
                f"resize them, or load it with another image size or number of channels"
            )

    def _block_arguments(self, start: int, stop: int) -> Any:
        runs_a_block = any(segment.block is not None for segment in self.segments[start:stop])
        compute = self.anatomy.block_arguments
        return compute() if compute is not None and runs_a_block else None


def _learns(module: nn.Module) -> bool:
    """Return whether a parameter that the module holds directly, not in a child, is trainable.

    Only such a module enters training mode: batch statistics, dropout and drop-path of all others stay off.
    """
    return any(parameter is not None and parameter.requires_grad for parameter in module._parameters.values())
