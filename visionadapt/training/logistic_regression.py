"""Multinomial logistic regression with an L2 penalty, fitted by L-BFGS."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_ITERATIONS = 100


def fit_logistic_regression(features: Tensor, labels: Tensor, classes: int, decay: float) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy + decay · ‖W‖², which has one minimum, from W = 0: weight [D, C] and bias [C].

    The features float32 [N, D] are standardised, the labels are class indices int64 [N].
    """
    with torch.inference_mode(False), torch.enable_grad():
        features, labels = (each.clone() if each.is_inference() else each for each in (features, labels))
        weight = torch.zeros(features.shape[1], classes, requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(features @ weight + bias, labels) + decay * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
