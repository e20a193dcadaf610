"""Training settings: one frozen dataclass, used by `fit` and the command line. Loads no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from visionadapt.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Sampling = Literal["every", "balanced"]
EngineName = Literal["auto", "eager", "folded", "compiled", "onnx"]
Keep = Literal["auto", "features", "pixels", "nothing"]
HeadName = Literal["auto", "solved", "trained"]
WantedTask = Literal["auto", "single", "multilabel"]
Loss = Literal["auto", "cross_entropy", "bce", "asymmetric", "focal"]
Metric = Literal["auto", "accuracy", "macro_f1", "mean_average_precision"]


class Default(int):
    """A default that is told from an equal number that was given."""


IMAGES = 12_000
"""What the default number of epochs is chosen for: so many images in all, counted again in every epoch."""

_MOST_EPOCHS = 40

_USUAL, _LEAST_SHARE = 600, 0.5
"""Training images up to which the methods' own learning rates hold, and the smallest share of these beyond."""

STEPWISE = ("mixup", "cutmix", "ema_decay")
"""Settings that have no effect on a solved head."""

MACHINE = {"machine": True}
"""Metadata of a field that depends on the machine and does not change the result."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training loop."""

    epochs: int = Default(20)
    """Passes over the training images; by default 20, and with fewer than 600 images as many as make 12,000 in all, at
    most 40."""

    head: HeadName = "auto"
    """solved: found exactly, with the penalty that cross-validation chooses (only with --adapter none); trained: in
    steps; auto: solved where it can be."""

    batch_size: int = 32
    """Images per step, of all processes together."""

    learning_rate: float | None = None
    """Peak learning rate of the adapter layers; by default the method's own, and with more than 600 training images
    less, by the root of their number, down to half."""

    head_learning_rate: float | None = None
    """Peak learning rate of the head; by default 0.001 alone, and 0.0005 with adapter layers."""

    weight_decay: float = 0.1
    """AdamW's weight decay, on matrices and kernels only."""

    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from zero; then it falls to zero along a cosine."""

    dropout: float = 0.3
    """Share of the head's input features that are dropped in training, in [0, 1)."""

    task: WantedTask = "auto"
    """single: an image has one class; multilabel: any number, including none; auto: as the data's labels are."""

    loss: Loss = "auto"
    """cross_entropy (the default) or focal for one class per image; bce (the default), asymmetric or focal for
    several."""

    label_smoothing: float | None = None
    """Share of the target spread over all classes, in [0, 1); by default 0.1, and 0 for several classes per image."""

    mixup: float = 0.0
    """Mix each image with another one of its batch, and their labels alike: α of mixup's Beta distribution, such as
    0.2; 0 mixes none."""

    cutmix: float = 0.0
    """Replace a box of each image by that of another one, and its share of the label: α of CutMix's Beta distribution,
    such as 1; 0 cuts none. With --mixup, each batch has one of the two."""

    class_weights: str = "none"
    """balanced: every class has the same weight, whatever its size; or factors on the loss of single classes as JSON,
    such as '{"cat": 2}', or in a .json file; or none."""

    sampling: Sampling = "every"
    """every: an epoch has each training image once; balanced: as many images, of every class the same number."""

    metric: Metric = "auto"
    """Figure of the validation images that chooses the best epoch: accuracy, macro_f1 or mean_average_precision; by
    default accuracy for one class per image, and mean_average_precision for several."""

    augment: Any = "none"
    """none, light, strong, or a custom pipeline as module:name."""

    views: int = 4
    """Number of augmented views per image, computed once and then used in turn."""

    accumulate: int = 1
    """Batches whose gradients are added before a step."""

    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""

    ema_decay: float = 0.0
    """Validate and keep an exponential moving average of the trained weights with this decay, such as 0.99; 0 keeps the
    weights themselves."""

    patience: int = 0
    """Epochs worse than the best by more than chance after which training stops; 0 never stops: the last epochs, at
    small learning rates, are mostly the good ones."""

    early_stopping: bool = True
    """Stop adapters that are so far below the solved head that they cannot catch up in the epochs that are left; the
    run then ends with that head, as it would after all epochs. With averaged weights, stop when their validation loss
    no longer falls too."""

    seed: int = 0
    """Seed of all random numbers."""

    precision: Precision = "auto"
    """Number format of the backbone's arithmetic; by default a 16-bit one where the hardware multiplies it, but
    float32 for what is frozen on a CPU."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    checkpointing: bool = False
    """Recompute each trained block in the backward pass instead of storing its activations: less memory, more time."""

    engine: EngineName = "auto"
    """What runs the frozen part: eager, folded, compiled or onnx; by default the fastest that agrees with eager."""

    keep: Keep = "auto"
    """What is cached of every image: features (the output of the frozen part), pixels, or nothing."""

    workers: int = field(default=-1, metadata=MACHINE)
    """Processes that read images; −1 chooses."""

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": self.learning_rate is None or 0 < self.learning_rate < float("inf"),
            "head_learning_rate": self.head_learning_rate is None or 0 < self.head_learning_rate < float("inf"),
            "dropout": 0 <= self.dropout < 1,
            "weight_decay": 0 <= self.weight_decay < float("inf"),
            "warmup": 0 <= self.warmup < 1,
            "label_smoothing": self.label_smoothing is None or 0 <= self.label_smoothing < 1,
            "mixup": 0 <= self.mixup < float("inf"),
            "cutmix": 0 <= self.cutmix < float("inf"),
            "ema_decay": 0 <= self.ema_decay < 1,
            "views": self.views >= 1,
            "accumulate": self.accumulate >= 1,
            "clip": self.clip >= 0,
            "patience": self.patience >= 0,
            "seed": 0 <= self.seed < 2**63,
            "workers": self.workers >= -1,
            "head": self.head in get_args(HeadName),
            "task": self.task in get_args(WantedTask),
            "loss": self.loss in get_args(Loss),
            "sampling": self.sampling in get_args(Sampling),
            "metric": self.metric in get_args(Metric),
            "precision": self.precision in get_args(Precision),
            "engine": self.engine in get_args(EngineName),
            "keep": self.keep in get_args(Keep),
        }
        wrong = next((name for name, right in checks.items() if not right), None)
        if wrong is not None:
            value = getattr(self, wrong)
            raise UsageError(f"--{wrong.replace('_', '-')} {value} is out of range; see --help for what it means")
        if not self.class_weights.endswith(".json"):  # the commands read a file first
            given_weights(self.class_weights)

    @property
    def solved(self) -> bool:
        """Whether the head is solved, once `for_model` has decided."""
        return self.head == "solved"

    def for_model(self, *, adapted: bool) -> TrainingSettings:
        """Return the settings with `head` decided; a solved head is found in one epoch.

        Args:
            adapted: whether adapter layers are trained, which takes steps.

        Raises:
            UsageError: a solved head is requested together with adapter layers, a loss that is not convex, or balanced
                sampling; or the head is solved, and an option is given that changes steps.
        """
        solvable = not adapted and self.loss not in {"asymmetric", "focal"} and self.sampling == "every"
        if self.head == "solved" and not solvable:
            other = "--adapter none" if adapted else "--sampling every and --loss auto"
            raise UsageError(f"--head solved needs {other}; give that, or --head trained")
        if self.head == "trained" or not solvable:
            return replace(self, head="trained")
        for name in (name for name in STEPWISE if getattr(self, name)):
            raise UsageError(
                f"--{name.replace('_', '-')} changes how a head is trained in steps, and --adapter none solves it; "
                "give --head trained, or adapter layers"
            )
        return replace(self, head="solved", epochs=1)

    def for_images(self, images: int) -> TrainingSettings:
        """Return the settings with the number of epochs decided, if it was not given, for so many training images.

        >>> [int(TrainingSettings().for_images(images).epochs) for images in (10, 410, 600, 5000)]
        [40, 29, 20, 20]
        """
        if not isinstance(self.epochs, Default) or self.solved:
            return self
        return replace(self, epochs=min(max(round(IMAGES / max(images, 1)), int(self.epochs)), _MOST_EPOCHS))


def rate_share(images: int) -> float:
    """Return the share of a method's own learning rate that so many training images are learned with.

    >>> [rate_share(images) for images in (100, 600, 1200, 2400, 10**6)]
    [1.0, 1.0, 0.7071067811865476, 0.5, 0.5]
    """
    return max(math.sqrt(_USUAL / max(images, _USUAL)), _LEAST_SHARE)


def given_weights(text: str) -> Mapping[str, float] | None:
    """Return the factors of the classes in a JSON object; None for `none` and `balanced`.

    Raises:
        UsageError: it is none of these, or a factor is not a positive number.
    """
    if text in {"none", "balanced"}:
        return None
    try:
        weights = json.loads(text)
    except (ValueError, RecursionError):
        weights = None
    if not isinstance(weights, dict):
        raise UsageError(f"--class-weights {text} is out of range; see --help for what it means")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise UsageError(f"--class-weights: the weight of {name!r} is {weight!r}; give a positive number")
    return weights
