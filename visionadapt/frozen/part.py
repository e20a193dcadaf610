"""The frozen part of one classifier: a hash of its weights, and the engines built for it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from visionadapt import adapters
from visionadapt.adapters.slot import places
from visionadapt.backbones.anatomy import Segment
from visionadapt.backbones.weights import tensors_hash
from visionadapt.errors import AdapterError, RunError
from visionadapt.frozen.engines import ENGINES, Engine, Prefix
from visionadapt.frozen.memory import Portions
from visionadapt.model.classifier import Classifier

TOLERANCE = 1e-4
"""Largest relative error ‖y − y₀‖ / ‖y₀‖ of an engine's output against eager float32 …"""

TIMES_EAGER = 2.0
"""… or this many times the error of the backbone itself in the same number format, if that is more."""

_Version = tuple[Hashable, ...]
"""Address of each tensor and how often it was changed in place; and where anything is trained, the active adapters."""
_LATEST: dict[Hashable, Engine] = {}
"""The engine used last in this process, by what it computes: for another fold, or another adapter on the backbone."""


class FrozenPart:
    """What a classifier computes before a cut: hashes and engines, made again after the weights have changed.

    An engine for a later cut than the frozen part's has the trained adapters in it, merged into the weights where they
    can be. The engine used last is shared with other classifiers whose frozen part is the same.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self.portions = {"before": Portions(), "after": Portions()}
        """How many images are computed at once, before the cut and after it."""
        self._hashes: dict[int, tuple[_Version, str]] = {}
        self._built: dict[tuple[str, Prefix], tuple[_Version, Engine | str]] = {}
        self._sound: dict[tuple[str, Prefix], tuple[_Version, bool]] = {}

    def hash(self, cut: int) -> str:
        """Return the SHA-256 of everything frozen before a cut; empty at the pixels, which depend on no weight."""
        if cut == 0:
            return ""
        version = self._version(cut)
        if cut not in self._hashes or self._hashes[cut][0] != version:
            self._hashes[cut] = (version, tensors_hash(("", tensor) for tensor in self._tensors(cut)))
        return self._hashes[cut][1]

    def engine(self, name: str, prefix: Prefix, *, exact: bool = False) -> Engine:
        """Return an engine of `ENGINES`; where it cannot be built, warn and return `eager`.

        Raise RunError instead if `exact`.
        """
        found = ENGINES["eager"](self.model, prefix) if name == "eager" else self._built_once(name, prefix)
        if not isinstance(found, str):
            return found
        if exact:
            raise RunError(f"the engine {name!r} cannot be built here ({found}), and this run computes with it")
        return ENGINES["eager"](self.model, prefix)

    def can_build(self, name: str, prefix: Prefix) -> bool:
        """Whether an engine can be built here; if not, a warning gives the reason."""
        return name == "eager" or not isinstance(self._built_once(name, prefix), str)

    @torch.inference_mode()
    def is_sound(self, name: str, prefix: Prefix) -> bool:
        """Whether an engine can be built here and agrees with the backbone on synthetic pixels; if not, a warning."""
        version = self._version(prefix.cut)
        if (name, prefix) not in self._sound or self._sound[name, prefix][0] != version:
            self._sound[name, prefix] = (version, self.can_build(name, prefix) and self._tried(name, prefix))
        return self._sound[name, prefix][1]

    def _tried(self, name: str, prefix: Prefix) -> bool:
        pixels = self.synthetic_pixels(prefix)
        try:
            error = self.relative_error(name, prefix, pixels)
            reason = "" if self.agrees(error, prefix, pixels) else f"its output differs by {error:.1e}"
        except Exception as error:  # noqa: BLE001 - whatever a graph does not support, the backbone itself still runs
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if reason:
            warnings.warn(f"the engine {name!r} is not used ({reason}); the backbone runs as it is", stacklevel=4)
        return not reason

    def synthetic_pixels(self, prefix: Prefix) -> Tensor:
        """Return smooth noise in the range of normalised pixels, the same on every machine: [batch, channels, S, S]."""
        config = self.model.backbone.config
        size = config.image_size
        coarse = torch.randn(prefix.batch, config.channels, 8, 8, generator=torch.Generator().manual_seed(0))
        smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        return smooth.to(prefix.device).contiguous(memory_format=torch.channels_last)

    def relative_error(self, name: str, prefix: Prefix, pixels: Tensor) -> float:
        """Compute ‖y − y₀‖ / ‖y₀‖ of an engine on normalised pixels [batch, 3, S, S]: the largest of the named tensors.

        y₀ is the backbone's own output in float32, for the first four images.
        """
        few = pixels[:4]
        exact = self.model.prefix(few, prefix.cut)
        return _distance(self.engine(name, prefix)(pixels), exact)

    def agrees(self, error: float, prefix: Prefix, pixels: Tensor) -> bool:
        """Whether the number format explains a relative error."""
        if error <= TOLERANCE:
            return True
        few = pixels[:4]
        own = _distance(self.engine("eager", prefix)(few), self.model.prefix(few, prefix.cut))
        return error <= TIMES_EAGER * own

    def _built_once(self, name: str, prefix: Prefix) -> Engine | str:
        """Return the engine, or why it cannot be built."""
        version = self._version(prefix.cut)
        if (name, prefix) not in self._built or self._built[name, prefix][0] != version:
            self._built[name, prefix] = (version, self._shared_or_built(name, prefix))
        return self._built[name, prefix][1]

    def _shared_or_built(self, name: str, prefix: Prefix) -> Engine | str:
        structure = self._structure(prefix.cut)
        if structure is None:
            return self._build(name, prefix)
        key = (ENGINES[name], prefix, self.model.backbone.name, structure, self.hash(prefix.cut))
        found = _LATEST.get(key) or self._build(name, prefix)
        if not isinstance(found, str):
            _LATEST.clear()
            _LATEST[key] = found
        return found

    def _build(self, name: str, prefix: Prefix) -> Engine | str:
        builder = ENGINES[name]
        try:
            return builder(self._merged(prefix.cut), prefix)
        except Exception as error:  # noqa: BLE001 - whatever fails in a compiler, the backbone itself still runs
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            text = f"the engine {name!r} cannot be built here ({reason}); the backbone runs as it is"
            warnings.warn(text, stacklevel=5)
            return reason

    def _merged(self, cut: int) -> Classifier:
        """Return the classifier, or where adapters act before the cut and can be merged, one with merged weights."""
        if not self._trained(cut):
            return self.model
        try:
            backbone = adapters.merge(self.model.backbone)
        except AdapterError:
            return self.model
        merged = copy.copy(self.model)
        merged._modules = {**self.model._modules, "backbone": backbone}
        return merged

    def _structure(self, cut: int) -> tuple[object, ...] | None:
        """Return input size and module types before a cut; None if adapters, training or hooks change the result."""
        if self._trained(cut):
            return None
        after = _modules_in(self.model.backbone.segments[cut:]) - _modules_in(self.model.backbone.segments[:cut])
        before = [module for module in self.model.backbone.model.modules() if module not in after]
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in before)
        if hooked or any(hasattr(type(module), "class_without_adapters") for module in before):
            return None
        backbone = self.model.backbone
        return backbone.config.image_size, backbone.feature_set, *map(type, before)

    def _tensors(self, cut: int) -> list[Tensor]:
        """Return the backbone's tensors except those after the cut and those that are trained."""
        return [tensor for tensor in self._all_tensors(cut) if not tensor.requires_grad]

    def _trained(self, cut: int) -> bool:
        """Whether anything before the cut is trained."""
        return any(tensor.requires_grad for tensor in self._all_tensors(cut))

    def _all_tensors(self, cut: int) -> list[Tensor]:
        """Return the backbone's tensors except those after the cut."""
        later = _modules_in(self.model.backbone.segments[cut:]) - _modules_in(self.model.backbone.segments[:cut])
        after = {id(tensor) for module in later for tensor in (*module._parameters.values(), *module._buffers.values())}
        tensors = (*self.model.backbone.parameters(), *self.model.backbone.buffers())
        return [tensor for tensor in tensors if id(tensor) not in after]

    def _version(self, cut: int) -> _Version:
        tensors = self._all_tensors(cut)
        states = ((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)
        acting = (slot.active for _, slot in places(self.model.backbone)) if self._trained(cut) else ()
        return (self.model.backbone.feature_set, *states, *acting)


def _distance(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    return max(
        float((found[name][: len(tensor)].double() - tensor.double()).norm() / tensor.double().norm().clamp_min(1e-12))
        for name, tensor in exact.items()
    )


def _modules_in(segments: Sequence[Segment]) -> set[nn.Module]:
    """Return the modules that some segments call, with all modules inside."""
    parts = [part for segment in segments for part in segment.parts if isinstance(part, nn.Module)]
    return {module for part in parts for module in part.modules()}
