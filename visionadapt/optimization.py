"""AdamW's parameter groups, the learning-rate schedule, and the optimiser's state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from visionadapt.settings import TrainingSettings


def parameter_groups(parameters: Mapping[str, nn.Parameter], settings: TrainingSettings) -> list[dict[str, object]]:
    """Two groups: matrices and kernels decay; biases, scales and other vectors do not."""
    decayed = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    free = [parameter for parameter in parameters.values() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def learning_rate_at(step: int, steps: int, settings: TrainingSettings) -> float:
    """Learning rate of step 0 ≤ `step` < `steps`: a linear rise over the warm-up, then a cosine to zero.

    Cosine: Loshchilov & Hutter, "SGDR", 2017, equation 5, with η_min = 0 and one cycle.
    """
    rising = round(settings.warmup * steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimiser's moments under keys `parameter/moment`, copied to the CPU."""
    return {
        f"{name}/{moment}": tensor.detach().cpu().clone()
        for name, parameter in parameters.items()
        for moment, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Take back what `optimizer_tensors` gave."""
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition("/")
        parameter = parameters[name]
        device = tensor.device if moment == "step" else parameter.device
        optimizer.state[parameter][moment] = tensor.clone().to(device)
