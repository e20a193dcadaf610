"""AdamW's parameter groups, the learning-rate schedule, and the optimiser's state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from visionadapt import adapters
from visionadapt.core.settings import TrainingSettings, rate_share
from visionadapt.model.classifier import Classifier

HEAD_ALONE = 1e-3
HEAD_BESIDE_ADAPTERS = 5e-4


def parameter_groups(model: Classifier, settings: TrainingSettings, images: int) -> list[dict[str, Any]]:
    """Group parameters by learning rate and decay: head and adapter layers have separate rates, only matrices decay.

    Each group's `peak` is the learning rate that the schedule's factor multiplies. Without `settings.learning_rate`
    it is the method's default, and less for many training `images`. A method's `layer_decay` lowers it to the stem.
    """
    method = model.adapter
    sites = model.backbone.sites() if method is not None else ()
    head_rate, rate = settings.head_learning_rate, settings.learning_rate
    if head_rate is None:
        head_rate = HEAD_ALONE if method is None else HEAD_BESIDE_ADAPTERS
    if rate is None:
        rate = float(getattr(method, "learning_rate", head_rate)) * rate_share(images)
    layer_decay: float = getattr(method, "layer_decay", 1.0)
    layers = adapters.parameter_groups(model.backbone, sites, rate, settings.weight_decay, layer_decay)
    heads = adapters.parameter_groups(model.head, (), head_rate, settings.weight_decay)
    return [
        {"params": group["params"], "peak": group["lr"], "weight_decay": group["weight_decay"]}
        for group in (*layers, *heads)
    ]


def schedule(step: int, steps: int, warmup: float) -> float:
    """Return the factor in [0, 1] on the peak learning rate at step 0 ≤ `step` < `steps`.

    It rises linearly over the share `warmup` of all steps, then falls to zero along a cosine: Loshchilov & Hutter,
    "SGDR", 2017, equation 5, with η_min = 0 and one cycle.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimiser's moments under keys `parameter/moment`, copied to the CPU."""
    return {
        f"{name}/{moment}": tensor.detach().cpu().clone()
        for name, parameter in parameters.items()
        for moment, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Restore the result of `optimizer_tensors`."""
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition("/")
        parameter = parameters[name]
        on_host = moment == "step" and not optimizer.defaults.get("fused")
        device = tensor.device if on_host else parameter.device
        optimizer.state[parameter][moment] = tensor.clone().to(device)
