"""A fused activation gives the numbers that the two operations give one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from visionadapt.frozen.graphs import frozen_graph, fuse_activations

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="this torch has no oneDNN",
)


def traced(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
    return frozen_graph(lambda pixels: {"x": model(pixels)}, x, dtype)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(-0.5, 2.0), nn.Hardtanh()],
    ids=["relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh without limits"],
)
@pytest.mark.parametrize("groups", [1, 8])
def test_the_bits_are_those_of_both_operations(activation: nn.Module, groups: int) -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups), activation).eval()
    x = (4 * torch.randn(2, 8, 11, 11)).contiguous(memory_format=torch.channels_last)
    graph = traced(model, x)
    with torch.inference_mode():
        assert fuse_activations(graph, torch.float32) == 1
        assert torch.equal(graph(x)["x"], model(x))


def test_hardswish_is_that_of_its_formula() -> None:
    """x · min(max(x + 3, 0), 6) / 6. Howard et al., "Searching for MobileNetV3", 2019, equation 1."""
    convolution = nn.Conv2d(1, 1, 1)
    nn.init.ones_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    x = torch.linspace(-5, 5, 25).reshape(1, 1, 5, 5)
    graph = traced(nn.Sequential(convolution, nn.Hardswish(inplace=True)).eval(), x)
    with torch.inference_mode():
        assert fuse_activations(graph, torch.float32) == 1
        torch.testing.assert_close(graph(x)["x"], x * (x + 3).clamp(0, 6) / 6)


def test_an_output_that_others_read_too_stays() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.convolution(x)
            return y + torch.relu(y)

    model, x = Residual().eval(), torch.randn(2, 4, 5, 5)
    graph = traced(model, x)
    with torch.inference_mode():
        assert fuse_activations(graph, torch.float32) == 0
        torch.testing.assert_close(graph(x)["x"], model(x))


def test_an_activation_of_something_else_stays() -> None:
    x = torch.randn(2, 4, 5, 5)
    graph = traced(nn.Sequential(nn.AvgPool2d(2), nn.ReLU()).eval(), x)
    assert fuse_activations(graph, torch.float32) == 0


def test_other_number_formats_stay() -> None:
    x = torch.randn(2, 4, 5, 5)
    graph = traced(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()).eval(), x, torch.float64)
    assert fuse_activations(graph, torch.float64) == 0


def test_bfloat16_is_fused_where_the_processor_multiplies_it() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU6()).eval()
    x = torch.randn(2, 8, 9, 9)
    graph = traced(model, x, torch.bfloat16)
    with torch.inference_mode():
        assert fuse_activations(graph, torch.bfloat16) == int(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        torch.testing.assert_close(graph(x.bfloat16())["x"].float(), model(x), rtol=0.02, atol=0.02)
