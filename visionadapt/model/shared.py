"""`SharedClassifiers`: several trained classifiers on one backbone, mixed in one batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionadapt import adapters
from visionadapt.backbones import Backbone
from visionadapt.errors import AdapterError
from visionadapt.model.classifier import Classifier


class SharedClassifiers(nn.Module):
    """Named classifiers with separate adapter layers and heads that share one backbone.

    Attributes:
        backbone: carries every classifier's adapter layers, under the classifier's name.
        heads: the heads by name; their class counts may differ.
        classes: class names of each classifier, in the order of its logits.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        self.classes: dict[str, tuple[str, ...]] = {}
        self.eval()

    def add(self, name: str, classifier: Classifier) -> None:
        """Add a copy of a classifier's adapter layers and head.

        Raises:
            AdapterError: the name is taken or invalid, or the classifier has another backbone.
        """
        other = classifier.backbone
        for what in ("name", "weights_hash", "config", "feature_set"):
            mine, theirs = getattr(self.backbone, what), getattr(other, what)
            if mine != theirs:
                raise AdapterError(f"the classifier {name!r} has a backbone with the {what} {theirs}, not {mine}")
        if classifier.members:
            raise AdapterError(f"the classifier {name!r} is an ensemble; add its members")
        if name in self.heads:
            raise AdapterError(f"a classifier named {name!r} is here already; remove it, or give another name")
        if classifier.adapter is not None:
            adapters.attach(self.backbone, classifier.adapter, sites=self.backbone.sites(), name=name)
            tensors = adapters.state(other).items()
            adapters.load_state(self.backbone, {f"{name}/{key.partition('/')[2]}": tensor for key, tensor in tensors})
            adapters.switch(self.backbone)
        self.heads[name] = copy.deepcopy(classifier.head).eval()
        self.classes[name] = classifier.classes

    def remove(self, name: str) -> None:
        """Remove a classifier; without any, the backbone has its original bits."""
        self._check([name])
        del self.heads[name], self.classes[name]
        if name in adapters.names(self.backbone):
            adapters.detach(self.backbone, name)

    def forward(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Normalised pixels [B, 3, S, S] and one classifier name per image → B logits, float32 [C of that classifier].

        Every adapter layer and head runs once per name that occurs, on all of its images together.

        Raises:
            AdapterError: a name is unknown, the counts differ, or a method changes what all images of a batch share.
        """
        self._check(names)
        if len(names) != len(pixels):
            raise AdapterError(f"{len(pixels)} images need as many names, not {len(names)}")
        attached = adapters.names(self.backbone)
        with adapters.mixed(self.backbone, [name if name in attached else None for name in names]):
            features = self.backbone(pixels)
        logits: list[Tensor] = [features.new_empty(0)] * len(names)
        for name in dict.fromkeys(names):
            rows = [row for row, other in enumerate(names) if other == name]
            for row, result in zip(rows, self.heads[name](features[torch.tensor(rows)]), strict=True):
                logits[row] = result
        return logits

    def _check(self, names: Sequence[str]) -> None:
        unknown = next((name for name in names if name not in self.heads), None)
        if unknown is not None:
            raise AdapterError(f"no classifier is named {unknown!r}; there are {', '.join(self.heads) or 'none'}")
