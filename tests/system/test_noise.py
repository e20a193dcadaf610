"""The noise of a row is the same however its batch is divided, and it is dropout's."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from visionadapt.system import noise

X = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0))


def test_on_the_cpu_a_whole_batch_gets_torch_s_own_dropout() -> None:
    torch.manual_seed(3)
    ours = noise.Dropout(0.4).train()(X)
    torch.manual_seed(3)
    assert torch.equal(ours, nn.Dropout(0.4).train()(X))


@pytest.mark.slow
@given(st.lists(st.integers(0, 7), max_size=3), st.sampled_from([1, 4]))
def test_parts_are_cut_from_the_noise_of_the_whole(cuts: list[int], windows: int) -> None:
    x = X.repeat_interleave(windows, 0)

    def both(rows: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return noise.DropPath(0.3)(noise.dropout(rows, 0.5, True))

    edges = [0, *sorted(cuts), 7]
    found = []
    for start, stop in pairwise(edges):
        if stop > start:
            with noise.part(start, stop, 7):
                found.append(both(x[start * windows : stop * windows]))
    assert torch.equal(torch.cat(found), both(x))


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_without_noise_it_is_the_input_itself(rate: float, training: bool) -> None:
    assert noise.dropout(X, rate, training) is X


def test_a_rate_of_one_leaves_nothing() -> None:
    assert torch.equal(noise.dropout(X, 1.0, True), torch.zeros_like(X))


def test_the_share_and_the_mean_stay() -> None:
    torch.manual_seed(0)
    out = noise.dropout(torch.ones(100_000), 0.3, True)
    assert (out == 0).double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
