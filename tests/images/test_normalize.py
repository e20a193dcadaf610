"""Normalisation against torchvision and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional

from tests.images.samples import textured
from visionadapt.errors import SpecError, UsageError
from visionadapt.images import NormalizeAdapter

IMAGENET = NormalizeAdapter((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PIXELS = torch.from_numpy(textured(40, 56)).permute(2, 0, 1)


@pytest.mark.parametrize("adapter", [IMAGENET, NormalizeAdapter(0.5, 0.5), NormalizeAdapter((0.1, 0.2, 0.3), 0.25)])
def test_equals_torchvision(adapter: NormalizeAdapter) -> None:
    mean, std = ([v] * 3 if isinstance(v, float) else list(v) for v in (adapter.mean, adapter.std))
    reference = functional.normalize(functional.to_dtype(PIXELS, torch.float32, scale=True), mean, std)
    assert torch.equal(adapter(PIXELS), reference)
    assert torch.equal(adapter(torch.stack([PIXELS, PIXELS]))[1], reference)
    array = adapter(PIXELS.permute(1, 2, 0).numpy())
    assert array.dtype == np.float32 and np.array_equal(array, reference.permute(1, 2, 0).numpy())
    assert adapter(PIXELS.permute(1, 2, 0).numpy()[None]).shape == (1, 40, 56, 3)


def test_worked_number() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 3)
    assert NormalizeAdapter(0.5, 0.5)(pixels).flatten().tolist() == pytest.approx([-1, -0.6, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_are_taken_as_already_scaled(dtype: torch.dtype) -> None:
    result = IMAGENET((PIXELS.double() / 255).to(dtype))
    assert result.dtype == torch.float32
    assert torch.allclose(result, IMAGENET(PIXELS), atol=2e-6 if dtype != torch.float16 else 5e-3)


def test_every_pixel_value_survives_the_inverse() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    assert torch.equal(IMAGENET.inverse(IMAGENET(pixels)), pixels)
    array = pixels.permute(1, 2, 0).numpy()
    assert np.array_equal(IMAGENET.inverse(IMAGENET(array)), array)
    assert IMAGENET.inverse(torch.full((3, 1, 1), 99.0)).unique().tolist() == [255]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), st.integers(0, 1000))
def test_measure_equals_numpy_over_everything_at_once(sizes: list[tuple[int, int]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    images = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [*sizes, (2, 3)]]
    flat = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    measured = NormalizeAdapter.measure(iter(images))
    assert measured.mean == pytest.approx(flat.mean(axis=0), abs=1e-12)
    assert measured.std == pytest.approx(flat.std(axis=0), abs=1e-12)


def test_measure_takes_every_kind_of_image() -> None:
    array = textured(9, 11)
    kinds = [array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1), array[None]]
    assert len({NormalizeAdapter.measure([kind]) for kind in kinds}) == 1
    assert NormalizeAdapter.measure(kinds).mean == pytest.approx(NormalizeAdapter.measure([array]).mean)
    assert len(NormalizeAdapter.measure([array[:, :, :1]]).mean) == 1  # type: ignore[arg-type]


def test_measure_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(UsageError, match="mean and std"):
        NormalizeAdapter.measure([])
    with pytest.raises(UsageError, match=r"\b3\b.*\b1\b.*channels"):
        NormalizeAdapter.measure([textured(4, 4), textured(4, 4)[:, :, :1]])
    with pytest.raises(UsageError, match="std is 0"):
        NormalizeAdapter.measure([np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(UsageError, match="uint8"):
        NormalizeAdapter.measure([np.zeros((4, 4, 3))])


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (torch.full((3, 2, 2), 255.0), r"\[0, 1\], got 255"),
        (torch.full((3, 2, 2), float("nan")), r"\[0, 1\], got nan"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), r"uint8 .*torch\.int64"),
        (torch.zeros(4, 2, 2, dtype=torch.uint8), "3 channels, .* 4"),
        (torch.zeros(3, 2, dtype=torch.uint8), r"got \(3, 2\)"),
        (np.zeros((3, 2), np.uint8), r"got \(3, 2\)"),
        (Image.new("RGB", (3, 3)), "got Image"),
    ],
)
def test_other_inputs_are_refused(pixels: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        IMAGENET(pixels)


@pytest.mark.parametrize(
    "bad",
    [
        *[{"std": 0}, {"std": (1, 1, -1)}, {"mean": "x"}, {"mean": ()}, {"mean": float("nan")}],
        {"mean": (0.1, 0.2), "std": (1.0, 1.0, 1.0)},
    ],
)
def test_settings_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="NormalizeAdapter"):
        NormalizeAdapter(**bad)


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("value", [10**400, (0.5, 10**400, 0.5)])
def test_a_number_that_no_float_holds_is_refused(field: str, value: object) -> None:
    with pytest.raises(SpecError, match=field):
        NormalizeAdapter(**{field: value})  # type: ignore[arg-type]
