"""Methods that train the model's own parameters: biases, norms, whole blocks, everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import nn

from visionadapt.adapters.placement import Placement
from visionadapt.adapters.pointwise import require
from visionadapt.adapters.slot import Point, Slot
from visionadapt.core.sites import Site


@dataclass(frozen=True)
class BitFit(Placement):
    """Train the biases.

    Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
    ACL 2022. Every parameter called `bias`, or `…_bias`, that lies directly in one of the sites.

    Trainable parameters: one for each output channel of every layer that has a bias.
    """

    learning_rate: ClassVar[float] = 1e-2  # chosen on validation parts: docs/measurements/defaults.md

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this method; empty if it can."""
        return "" if any(_is_bias(name) for name, _ in _own(site.module)) else "it has no bias"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Everything but the blocks, whose layers are sites themselves."""
        return [site for site in sites if site.kind != "block"]

    def build(self, site: Site) -> nn.Module:
        """Trainable copies of the site's biases."""
        return TunedLayer(site.module, [name for name, _ in _own(site.module) if _is_bias(name)])


@dataclass(frozen=True)
class NormTuning(Placement):
    """Train the norms' factors and shifts.

    Frankle et al., "Training BatchNorm and Only BatchNorm", ICLR 2021, for BatchNorm; Basu et al., "Strong Baselines
    for Parameter Efficient Few-Shot Fine-tuning", AAAI 2024 (LN-Tune), for LayerNorm. Running statistics stay.

    Trainable parameters: 2·C a norm over C channels, C where it has no bias.
    """

    needs: ClassVar[str] = "a norm"
    learning_rate: ClassVar[float] = 1.5e-2  # chosen on validation parts: docs/measurements/defaults.md

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this method; empty if it can."""
        if site.kind != "norm":
            return "it is not a norm"
        return "" if any(True for _ in _own(site.module)) else "it is a norm without parameters"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """Every norm, outside of blocks too."""
        return [site for site in sites if site.kind == "norm"]

    def build(self, site: Site) -> nn.Module:
        """Trainable copies of the norm's parameters."""
        return TunedLayer(site.module, [name for name, _ in _own(site.module)])


@dataclass(frozen=True)
class PartialFineTuning(Placement):
    """Train the chosen blocks as they are, dropout and drop-path included; BatchNorm keeps its statistics.

    Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.

    Trainable parameters: those of the blocks.

    Attributes:
        layer_decay: factor on the learning rate from one block to the one in front of it; see `parameter_groups`.
    """

    needs: ClassVar[str] = "blocks"

    blocks: str = "last:2"
    learning_rate: ClassVar[float] = 3e-4

    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.layer_decay <= 1, f"layer_decay={self.layer_decay} must be above 0 and at most 1")

    def refuse(self, site: Site) -> str:
        """Why the site cannot take this method; empty if it can."""
        return "" if any(True for _ in _below(site.module)) else "it has no parameters"

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """The blocks, and what belongs to them without lying inside, such as a downsampling in front."""
        blocks = [site for site in sites if site.kind == "block"]
        inside = {id(module) for block in blocks for module in block.module.modules()}
        outside = [site for site in sites if site.block is not None and id(site.module) not in inside]
        return [site for site in sites if site in blocks or site in _outermost(outside)]

    def build(self, site: Site) -> nn.Module:
        """Trainable copies of the site's parameters."""
        return TunedLayer(site.module, [name for name, _ in _below(site.module)], wakes=True)


@dataclass(frozen=True)
class FullFineTuning(PartialFineTuning):
    """Train the whole model, dropout and drop-path included; BatchNorm keeps its statistics.

    The learning rate falls towards the stem (Clark et al., "ELECTRA", ICLR 2020; Bao et al., "BEiT", ICLR 2022).
    Where blocks, stages, names or types are chosen, only these are trained, as in `PartialFineTuning`.

    Trainable parameters: all of the model's, or those of what is chosen.
    """

    blocks: str = "all"
    layer_decay: float = 0.75

    @property
    def whole_model(self) -> bool:
        """Whether nothing is chosen, so that stem and final norm are trained too."""
        return (self.blocks, self.stages, self.where, self.types) == ("all", "all", "", "")

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        """The model itself, which `attach` offers as the only site, or the chosen blocks."""
        return list(sites) if self.whole_model else super().own_places(sites)


@dataclass(frozen=True)
class LinearProbeFineTuning(FullFineTuning):
    """LP-FT: train the head alone first, then everything.

    Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.

    Attributes:
        probe: share of the epochs in which the head is trained alone; see `frozen_in`.
    """

    probe: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.probe < 1, f"probe={self.probe} is a share of the epochs: above 0 and below 1")


def frozen_in(settings: object, epoch: int, epochs: int) -> bool:
    """Whether in that epoch (from 0) the head alone is trained: then `switch(model)`, later `switch(model, name)`.

    `LinearProbeFineTuning(probe=0.5)` in 5 epochs: in epochs 0 and 1.
    """
    return isinstance(settings, LinearProbeFineTuning) and epoch < round(settings.probe * epochs)


class TunedLayer(nn.Module):
    """Trainable copies of parameters of a host, under their own names, that take the originals' place while they act.

    The originals are kept, untouched, for `leave`.
    """

    points: tuple[Point, ...] = ()

    def __init__(self, host: nn.Module, parameters: Sequence[str], wakes: bool = False) -> None:
        super().__init__()
        self.wakes = wakes
        self.paths = tuple(parameters)
        self.originals: dict[str, nn.Parameter] = {}
        twins: dict[int, nn.Parameter] = {}
        for path in parameters:
            original = _get(host, path)
            twin = twins.setdefault(id(original), _twin(original))
            _register(self, path, twin)

    def enter(self, host: nn.Module) -> None:
        """Put the trainable copies where the host reads its parameters."""
        for path in self.paths:
            self.originals[path] = _get(host, path)
            _set(host, path, _get(self, path))

    def leave(self, host: nn.Module) -> None:
        """Put the originals back, on the device and in the type that the host has by now."""
        for path, original in self.originals.items():
            now = _get(host, path)
            if (original.device, original.dtype) != (now.device, now.dtype):
                original.data = original.data.to(now.device, now.dtype)
            _set(host, path, original)
        self.originals = {}

    def woken(self, host: nn.Module) -> Iterator[nn.Module]:
        """The modules that follow `train()` while this layer acts."""
        if self.wakes:
            yield from _modules_below(host)


def _twin(original: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(original.detach().clone(), requires_grad=original.requires_grad)


def _is_bias(name: str) -> bool:
    return name == "bias" or name.endswith("_bias")


def _own(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return module.named_parameters(recurse=False)


def _modules_below(module: nn.Module) -> Iterator[nn.Module]:
    """The module and all inside it, adapters left out."""
    yield module
    for child in module.children():
        if not isinstance(child, Slot):
            yield from _modules_below(child)


def _below(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter in the module by dotted name, tied ones under each name, adapters' left out."""
    for name, parameter in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
        yield name, parameter
    for name, child in module.named_children():
        if not isinstance(child, Slot):
            yield from _below(child, f"{prefix}.{name}" if prefix else name)


def _outermost(sites: list[Site]) -> list[Site]:
    """The sites that lie inside no other of them."""
    modules = {id(site.module) for site in sites}
    nested = {id(inner) for site in sites for inner in list(site.module.modules())[1:]}
    return [site for site in sites if id(site.module) in modules - nested]


def _get(module: nn.Module, path: str) -> nn.Parameter:
    owner, _, name = path.rpartition(".")
    return cast(nn.Parameter, module.get_submodule(owner)._parameters[name])


def _set(module: nn.Module, path: str, parameter: nn.Parameter) -> None:
    owner, _, name = path.rpartition(".")
    module.get_submodule(owner)._parameters[name] = parameter


def _register(module: nn.Module, path: str, parameter: nn.Parameter) -> None:
    """Register a parameter under a dotted path, with plain modules in between."""
    *owners, name = path.split(".")
    for owner in owners:
        if owner not in module._modules:
            module.add_module(owner, nn.Module())
        module = cast(nn.Module, module._modules[owner])
    module.register_parameter(name, parameter)
