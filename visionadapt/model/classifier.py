"""`Classifier`: a backbone, its adapter layers and a new head, as one `nn.Module`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from visionadapt import adapters
from visionadapt.adapters.attach import acting
from visionadapt.backbones import Backbone, default_name
from visionadapt.backbones import load as load_backbone
from visionadapt.backbones.feature_sets import FeatureSet
from visionadapt.core import spec
from visionadapt.errors import AdapterError, UsageError
from visionadapt.sources.objects.copies import local_file
from visionadapt.sources.objects.urls import is_object_url
from visionadapt.tasks import ClassificationHead, TaskName, no_thresholds, plain_task

HEAD = "head"
_THRESHOLDS = "thresholds"


class Classifier(nn.Module):
    """Normalised pixels float [B, 3, S, S] → logits float32 [B, C].

    Attributes:
        backbone: frozen, with the adapter layers attached to it.
        head: the new head; its weights and the adapters' are all that is trained.
        classes: class names in the order of the logits.
        adapter: settings of the adapter layers; None for a linear probe and for an ensemble.
        members: settings of the adapter layers of each member of an ensemble; empty for a single classifier.
        task: whether an image has exactly one class, or any number of them.
        thresholds: the probability at which an image gets each class, float64 [C] on the CPU; [0] for a task without
            thresholds.
        weights: where the backbone's weights came from: `pretrained`, `none` or a file.
        seed: of the adapters' initial values, and of the backbone's weights if they are random.
        plan: the plan it was trained with, from `Plan.to_json`; None before `fit`.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        adapter: adapters.AdapterSettings | None,
        seed: int = 0,
        weights: str = "pretrained",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = tuple(classes)
        self.adapter = adapter
        self.members: tuple[adapters.AdapterSettings | None, ...] = ()
        self.seed = seed
        self.weights = weights
        if adapter is not None:
            adapters.attach(backbone, adapter, sites=backbone.sites(), seed=seed)
        self.acting = acting(backbone)
        self.head = ClassificationHead(backbone.num_features, len(self.classes))
        self.task: TaskName = "single"
        self.thresholds = no_thresholds()
        self.plan: Mapping[str, Any] | None = None

    @property
    def has_adapters(self) -> bool:
        """Whether adapter layers are attached to the backbone."""
        return self.adapter is not None or any(member is not None for member in self.members)

    @property
    def adapter_specs(self) -> tuple[str, ...]:
        """The adapter layers as text, such as `lora(rank=8)` or `none`; of an ensemble, those of each member."""
        each = self.members or (self.adapter,)
        return tuple("none" if one is None else spec.format(one, "adapter") for one in each)

    def use_features(self, features: FeatureSet) -> None:
        """Set the features that the head gets, `last` or `blocks`; another set takes a new head.

        `blocks` adds mean and standard deviation of each channel after each of the last four blocks to its pooled
        features: heads on them are often better, most of all on images unlike those of the pretraining.
        """
        if features != self.backbone.feature_set:
            self.backbone.use_features(features)
            self.head = ClassificationHead(self.backbone.num_features, len(self.classes))

    def drop_unused_features(self) -> None:
        """Use the backbone's own features alone, if the head gives all others a weight of 0; its logits stay."""
        own, head = self.backbone.own_features, self.head
        if not self.has_unused_features():
            return
        self.use_features("last")
        self.head.to(head.linear.weight)
        tensors = {name: tensor[..., :own] for name, tensor in head.state_dict().items() if "bias" not in name}
        self.head.load_state_dict({**head.state_dict(), **tensors})

    def set_task(self, task: TaskName) -> None:
        """Set what the logits mean: a softmax, or a sigmoid per class with a threshold, initially 0.5."""
        if task != self.task:
            self.task, self.thresholds = task, plain_task(task).first_thresholds(len(self.classes))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised floats [B, 3, S, S] → logits float32 [B, C]."""
        return self.logits({"x": pixels}, 0)

    def logits(self, state: Mapping[str, Tensor], cut: int) -> Tensor:
        """Run everything after `cut` on the tensors there: logits float32 [B, C]."""
        return cast(Tensor, self.head(self.features(state, cut)))

    def features(self, state: Mapping[str, Tensor], cut: int, *, own: bool = False) -> Tensor:
        """Run the backbone from `cut` to its end: pooled features [B, D].

        A state at a cut of the feature set `blocks` will do for `last` too. With `own`, only the model's own features
        are computed, and the others are the means that the head subtracts.
        """
        found = self.backbone.run(state, cut, len(self.backbone.segments), own=own)["x"]
        if own:
            means = self.head.feature_mean[self.backbone.own_features :].expand(len(found), -1)
            found = torch.cat([found[:, : self.backbone.own_features], means], dim=1)
        return found[:, : self.backbone.num_features]

    def has_unused_features(self) -> bool:
        """Whether the head gives a weight of 0 to all features but the model's own."""
        own = self.backbone.own_features
        return self.backbone.num_features > own and not bool(self.head.linear.weight[:, own:].any())

    def prefix(self, pixels: Tensor, cut: int) -> dict[str, Tensor]:
        """Run everything before `cut` on normalised pixels [B, 3, S, S]: the named tensors there."""
        return self.backbone.run({"x": pixels}, 0, cut)


def classifier(
    backbone: str = default_name,
    classes: Sequence[str] = (),
    adapter: adapters.AdapterSettings | str | None = None,
    weights: str | Path = "pretrained",
    image_size: int | None = None,
    seed: int = 0,
    task: TaskName = "single",
    channels: int = 3,
) -> Classifier:
    """Load a backbone, attach adapter layers and add a new head.

    Args:
        backbone: a timm model's name.
        classes: at least two distinct class names.
        adapter: adapter settings, a string such as `lora(rank=8)`, or None (`none`) for a linear probe.
        weights: `pretrained`, `none` for random ones, or a file, also in object storage.
        image_size: side of the input in pixels, by default the pretrained one.
        seed: of the adapters' initial values, and of the backbone's weights if they are random.
        task: `single` for one class per image, `multilabel` for any number; `fit` sets it again.
        channels: of the images: 1 for grey, or as many bands as are chosen; see `DecodeAdapter`.

    Raises:
        UsageError: an argument is unavailable or does not fit; the message describes the remedy.
    """
    if len(classes) < 2:
        raise UsageError(f"a classifier needs two classes at least, not {len(classes)}")
    if len(set(classes)) < len(classes):
        name, count = Counter(classes).most_common(1)[0]
        raise UsageError(f"class {name!r} is named {count} times; name each class once")
    if isinstance(adapter, str):
        adapter = None if adapter == "none" else spec.parse(adapter, "adapter")
    plain = str(weights) in {"pretrained", "none"} or is_object_url(str(weights))
    origin = str(weights) if plain else str(Path(weights).absolute())
    loaded = load_backbone(backbone, local_file(weights), image_size, seed, channels)
    model = Classifier(loaded, classes, adapter, seed, origin)
    model.set_task(task)
    return model


def trained_tensors(model: Classifier) -> dict[str, Tensor]:
    """Return all trained tensors under keys `name/site/parameter`, `head/…` and `thresholds`, without copying."""
    head = {f"{HEAD}/{key}": tensor.detach() for key, tensor in model.head.state_dict().items()}
    thresholds = {_THRESHOLDS: model.thresholds} if len(model.thresholds) else {}
    return {**(adapters.state(model.backbone) if model.has_adapters else {}), **head, **thresholds}


def load_trained_tensors(model: Classifier, tensors: Mapping[str, Tensor]) -> None:
    """Copy the result of `trained_tensors` into a classifier built alike; raise AdapterError if one does not fit."""
    if (_THRESHOLDS in tensors) != bool(len(model.thresholds)):
        raise AdapterError(
            f"what is saved was not trained for the task {model.task!r}; build the classifier for its own"
        )
    head = {key.removeprefix(f"{HEAD}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{HEAD}/")}
    own = model.head.state_dict()
    if {key: tensor.shape for key, tensor in head.items()} != {key: tensor.shape for key, tensor in own.items()}:
        raise AdapterError(
            f"the saved head does not fit one with {len(model.classes)} classes on {model.backbone.name}"
        )
    model.head.load_state_dict(head)
    model.thresholds = tensors.get(_THRESHOLDS, model.thresholds).detach().cpu().clone()
    rest = {key: t for key, t in tensors.items() if not key.startswith(f"{HEAD}/") and key != _THRESHOLDS}
    if rest or model.has_adapters:
        adapters.load_state(model.backbone, rest)
