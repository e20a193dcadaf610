"""The classification head: standardised features, then one logit per class."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from visionadapt.system.noise import Dropout


class ClassificationHead(nn.Module):
    """logits = W · (x − mean) / std + b, with mean and std of the training features as fixed buffers.

    Pretrained features differ by orders of magnitude between channels and backbones. Standardised, they all train with
    one learning rate, and dropout sets a feature to its mean. W and b start at zero, so the first step does not depend
    on a random draw.

    Args:
        features: D, the number of pooled features.
        classes: C, the number of logits.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_std", torch.ones(features))
        self.dropout = Dropout(0.0)
        self.linear = nn.Linear(features, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, D] of any float type → logits float32 [B, C], always computed in float32."""
        with torch.autocast(features.device.type, enabled=False):
            standardised = (features.float() - self.feature_mean) / self.feature_std
            return self._linear(self.dropout(standardised))

    def _linear(self, features: Tensor) -> Tensor:
        weight = self.linear.weight
        if not isinstance(weight, Tensor) or weight.dtype == torch.float32:  # a quantised layer has no tensor
            return cast(Tensor, self.linear(features))
        return functional.linear(features.float(), weight.float(), self.linear.bias.float())

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Store mean and standard deviation [D] of the training features; a constant channel is not scaled.

        The weights change with them, so that a head that is trained already gives the same logits as before.
        """
        std = torch.where(std > 1e-6, std, torch.ones_like(std)).to(self.feature_std)
        mean = mean.to(self.feature_mean)
        with torch.no_grad():
            weight = self.linear.weight.double() / self.feature_std
            self.linear.bias.add_(weight @ (mean - self.feature_mean).double())
            self.linear.weight.copy_(weight * std)
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)

    def set_linear(self, mean: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Set the weights so that logits = (x − mean) · weight + bias; mean [D], weight [D, C], bias [C]."""
        with torch.no_grad():
            own = weight.to(self.linear.bias).double()
            shift = (self.feature_mean - mean.to(self.feature_mean)).double() @ own
            self.linear.weight.copy_((own * self.feature_std.double()[:, None]).T)
            self.linear.bias.copy_(bias.to(self.linear.bias).double() + shift)
