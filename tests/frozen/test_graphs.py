"""Folding gives the numbers that the formula gives, and leaves the model that it came from as it was."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from visionadapt.frozen.graphs import frozen_graph


def normalised(channels: int, seed: int) -> nn.BatchNorm2d:
    """A batch norm whose four vectors all matter."""
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm2d(channels, eps=1e-3)
    norm.weight.data = torch.rand(channels, generator=generator) + 0.5
    norm.bias.data = torch.randn(channels, generator=generator)
    norm.running_mean = torch.randn(channels, generator=generator)
    norm.running_var = torch.rand(channels, generator=generator) + 0.1
    return norm


def batch_norms(graph: torch.fx.GraphModule) -> int:
    return sum("batch_norm" in str(node.target) for node in graph.graph.nodes)


def folded(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> torch.fx.GraphModule:
    return frozen_graph(lambda pixels: {"x": model(pixels)}, x, dtype)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 6, 3, bias=False),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=True),
        nn.Conv2d(4, 8, 3, groups=2, dilation=2),
        nn.Conv2d(4, 4, 5, padding=2, groups=4),
    ],
    ids=["plain", "strided with bias", "grouped and dilated", "depthwise"],
)
def test_a_batch_norm_goes_into_its_convolution(convolution: nn.Conv2d) -> None:
    model = nn.Sequential(convolution, normalised(convolution.out_channels, 1), nn.ReLU()).eval()
    x = torch.randn(2, 4, 9, 9)
    graph = folded(model, x)
    with torch.no_grad():
        expected = model(x)
        assert batch_norms(graph) == 0
        torch.testing.assert_close(graph(x)["x"], expected, rtol=1e-5, atol=1e-5)


def test_the_folded_weight_is_that_of_a_hand_worked_number() -> None:
    """γ = 3, σ² + ε = 4, μ = 5, β = 7: s = 3/2, so that 2x + 1 becomes 1.5 · (2x + 1 − 5) + 7 = 3x + 1."""
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    values = ((convolution.weight, 2.0), (convolution.bias, 1.0), (norm.weight, 3.0), (norm.bias, 7.0))
    with torch.no_grad():
        for tensor, value in (*values, (norm.running_mean, 5.0), (norm.running_var, 3.0)):
            tensor.fill_(value)  # type: ignore[union-attr]
    graph = folded(nn.Sequential(convolution, norm).eval(), torch.zeros(1, 1, 1, 1))
    assert graph(torch.full((1, 1, 1, 1), 10.0))["x"].item() == pytest.approx(31.0)


def test_a_convolution_that_something_else_reads_too_keeps_its_batch_norm() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), normalised(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.convolution(x)
            return self.norm(seen) + seen

    model, x = Branching().eval(), torch.randn(2, 3, 4, 4)
    graph = folded(model, x)
    assert batch_norms(graph) == 1
    torch.testing.assert_close(graph(x)["x"], model(x))


def test_the_model_keeps_its_weights_its_modes_and_its_number_format() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), normalised(3, 3), nn.Conv2d(3, 2, 1)).eval()
    model[2].train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = folded(model, torch.randn(2, 3, 5, 5), torch.bfloat16)
    result = graph(torch.randn(2, 3, 5, 5).bfloat16())["x"]
    assert result.dtype == torch.bfloat16
    assert [module.training for module in model] == [False, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def paddings(graph: torch.fx.GraphModule) -> int:
    return sum(str(node.target).startswith("aten.pad") for node in graph.graph.nodes)


class Padded(nn.Module):
    """A picture padded by hand, then a convolution."""

    def __init__(self, amounts: tuple[int, ...], convolution: nn.Conv2d, value: float = 0.0) -> None:
        super().__init__()
        self.amounts, self.convolution, self.value = amounts, convolution, value

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.convolution(nn.functional.pad(x, self.amounts, value=self.value)))


@pytest.mark.parametrize("amounts", [(0, 1, 0, 1), (1, 0, 2, 0), (1, 2, 0, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    "convolution",
    [nn.Conv2d(4, 4, 3, stride=2, groups=4), nn.Conv2d(4, 6, 5, stride=2, padding=(1, 2)), nn.Conv2d(4, 6, 3)],
    ids=["depthwise", "padded itself", "plain"],
)
def test_a_padding_goes_into_its_convolution(amounts: tuple[int, ...], convolution: nn.Conv2d) -> None:
    model = Padded(amounts, convolution).eval()
    x = torch.randn(2, 4, 12, 13)
    graph = folded(model, x)
    with torch.no_grad():
        assert paddings(graph) == 0
        torch.testing.assert_close(graph(x)["x"], model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        Padded((0, 1, 0, 1), nn.Conv2d(4, 4, 3), value=1.0),
        Padded((0, 1, 0, 1), nn.Conv2d(4, 4, 3, dilation=2)),
        Padded((0, -1, 0, 1), nn.Conv2d(4, 4, 3)),
    ],
    ids=["with ones", "dilated", "cut"],
)
def test_a_padding_that_no_kernel_can_stand_for_stays(model: nn.Module) -> None:
    x = torch.randn(2, 4, 9, 9)
    graph = folded(model.eval(), x)
    with torch.no_grad():
        assert paddings(graph) == 1
        torch.testing.assert_close(graph(x)["x"], model(x), rtol=1e-5, atol=1e-5)
