"""Geometry and pixels of resizing, against timm's eval transform, explicit filter weights and worked numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.images.samples import Array, textured
from visionadapt.errors import SpecError, UsageError
from visionadapt.images import ResizeAdapter

SIZES = [(300, 300), (400, 400), (375, 500), (500, 333), (711, 400), (225, 601), (100, 120), (224, 224), (257, 1021)]


def tensor(image: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()


def difference(adapter: ResizeAdapter, height: int, width: int, **timm_settings: Any) -> tuple[float, int]:
    image = textured(height, width, seed=height + width)
    timm_settings = {"interpolation": "bicubic", "is_training": False, "normalize": False, **timm_settings}
    reference = create_transform(**timm_settings)(Image.fromarray(image))
    found = (adapter(tensor(image)).int() - reference.int()).abs()
    return float(found.float().mean()), int(found.max())


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("size", "crop_pct", "interpolation"),
    [
        (224, 0.875, "bicubic"),
        (224, 0.9, "bicubic"),
        (240, 0.95, "bilinear"),
        ((160, 224), 0.9, "bicubic"),
        (97, 1.0, "bicubic"),
    ],
)
def test_crop_agrees_with_timm(height: int, width: int, size: Any, crop_pct: float, interpolation: Any) -> None:
    sides = size if isinstance(size, tuple) else (size, size)
    adapter = ResizeAdapter(size, crop_pct=crop_pct, interpolation=interpolation)
    mean, maximum = difference(
        adapter, height, width, input_size=(3, *sides), crop_pct=crop_pct, interpolation=interpolation
    )
    assert mean <= 0.05 and maximum <= 3


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_letterbox_agrees_with_timm_border_mode(height: int, width: int) -> None:
    adapter = ResizeAdapter(224, "letterbox", fill=(128, 128, 128))
    mean, maximum = difference(
        adapter, height, width, input_size=(3, 224, 224), crop_pct=1.0, crop_mode="border", mean=(0.5, 0.5, 0.5)
    )
    assert mean <= 0.05 and maximum <= 3


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_squash_agrees_with_timm_squash_mode(height: int, width: int) -> None:
    mean, maximum = difference(
        ResizeAdapter(224, "squash"), height, width, input_size=(3, 224, 224), crop_pct=1.0, crop_mode="squash"
    )
    assert mean <= 0.3 and maximum <= 6


@pytest.mark.parametrize("size", [(24, 32), (48, 16), (32, 256), (288, 384)])
def test_nearest_takes_the_pixels_that_pillow_takes(size: tuple[int, int]) -> None:
    image = textured(96, 128)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(ResizeAdapter(size, "squash", interpolation="nearest")(image), expected)


def triangle(full: int, size: int) -> Array:
    """The antialiased bilinear filter as a matrix [size, full]: a triangle as wide as the scale, normalised."""
    scale = full / size
    centres = (np.arange(size) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(full) + 0.5 - centres[:, None]) / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(9, 5), (9, 1), (1, 9), (1, 1), (50, 3), (40, 60)])
@pytest.mark.parametrize("size", [(7, 1), (1, 7), (1, 1), (3, 4), (9, 5), (20, 30)])
def test_bilinear_equals_explicit_filter_weights(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Torch's own kernels are wrong to a width of 1; these sizes cover it."""
    image = textured(*shape, seed=1)
    adapter = ResizeAdapter(size, "squash", interpolation="bilinear")
    across = np.einsum("hwc,xw->hxc", image.astype(float), triangle(shape[1], size[1]))
    expected = np.einsum("hxc,yh->yxc", across, triangle(shape[0], size[0]))
    for result in (adapter(image), adapter(tensor(image)).permute(1, 2, 0).numpy()):
        assert np.abs(result - expected).max() <= 1.01


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    policy=st.sampled_from(["crop", "squash", "letterbox"]),
    crop_pct=st.floats(0.4, 1.0),
    interpolation=st.sampled_from(["bicubic", "bilinear", "nearest"]),
)
def test_every_kind_of_image_gives_the_same_bits(
    shape: tuple[int, int], size: tuple[int, int], policy: Any, crop_pct: float, interpolation: Any
) -> None:
    adapter = ResizeAdapter(size, policy, crop_pct, interpolation)
    given = textured(*shape)
    array = adapter(given)
    image = adapter(Image.fromarray(given))
    single = adapter(tensor(given))
    batch = adapter(torch.stack([tensor(given)] * 2))
    assert array.shape == (*size, 3) and array.dtype == np.uint8
    assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), array)
    assert single.is_contiguous() and np.array_equal(single.permute(1, 2, 0).numpy(), array)
    assert batch.shape == (2, 3, *size) and torch.equal(batch[1], single)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    policy=st.sampled_from(["crop", "squash", "letterbox"]),
)
def test_placement_is_centred_and_keeps_its_promise(shape: tuple[int, int], size: tuple[int, int], policy: Any) -> None:
    top, left, height, width = ResizeAdapter(size, policy).placement(*shape)
    for start, length, side in ((top, height, size[0]), (left, width, size[1])):
        assert abs(start - (side - start - length)) <= 1
        if policy == "crop":
            assert start <= 0 and start + length >= side
        if policy == "letterbox":
            assert start >= 0 and start + length <= side
    if policy == "letterbox":
        assert height == size[0] or width == size[1]
    if policy == "squash":
        assert (height, width) == size


def test_letterbox_worked_number() -> None:
    adapter = ResizeAdapter(224, "letterbox", fill=(1, 2, 3))
    assert adapter.placement(300, 400) == (28, 0, 168, 224)
    result = adapter(np.full((300, 400, 3), 200, np.uint8))
    assert (result[:28] == (1, 2, 3)).all() and (result[196:] == (1, 2, 3)).all() and (result[28:196] == 200).all()


def test_crop_worked_number() -> None:
    """375 × 500 at 224, crop_pct 0.875: the short side becomes 256, the long 341, the centre begins at (16, 58)."""
    assert ResizeAdapter(224, crop_pct=0.875).placement(375, 500) == (-16, -58, 256, 341)


@pytest.mark.parametrize("policy", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (2, 3), (3, 70_000)])
def test_extreme_images(policy: Any, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    result = ResizeAdapter(224, policy, fill=77)(image)
    assert result.shape == (224, 224, 3) and (result == 77).all()


def test_the_middle_of_an_extremely_long_image_is_shown() -> None:
    image = np.zeros((10, 1001, 3), np.uint8)
    image[:, 500] = 255
    row = ResizeAdapter(100)(image)[50, :, 0].astype(int)
    assert row[49] == row[50] > 150 and row[:40].max() == row[60:].max() == 0


def test_one_batch_of_many_sizes() -> None:
    images = [tensor(textured(*size)) for size in ((300, 300), (400, 400), (31, 500))]
    assert torch.stack([ResizeAdapter(224)(image) for image in images]).shape == (3, 3, 224, 224)


def test_grey_and_alpha_channels() -> None:
    assert ResizeAdapter(20, "letterbox")(np.zeros((30, 40, 1), np.uint8)).shape == (20, 20, 1)
    result = ResizeAdapter(20, "letterbox", fill=(9, 8, 7))(torch.zeros(4, 30, 40, dtype=torch.uint8))
    assert result.shape == (4, 20, 20) and result[:, 0, 0].tolist() == [9, 9, 9, 9]


def test_inside_torchvision() -> None:
    image = Image.fromarray(textured(50, 70))
    piped = v2.Compose([ResizeAdapter(32), v2.ToImage()])(image)
    assert isinstance(piped, tv_tensors.Image) and piped.shape == (3, 32, 32)
    wrapped = v2.Compose([v2.ToImage(), ResizeAdapter(32), v2.RandomHorizontalFlip(1.0)])(image)
    assert isinstance(wrapped, tv_tensors.Image) and torch.equal(wrapped.flip(-1), piped)


def test_inputs_are_not_changed() -> None:
    image = textured(40, 40)
    image.setflags(write=False)
    kept = image.copy()
    ResizeAdapter(40)(image)
    assert np.array_equal(image, kept)
    assert np.array_equal(ResizeAdapter(20)(image[::-1, ::-1]), ResizeAdapter(20)(image[::-1, ::-1].copy()))


@pytest.mark.parametrize(
    "bad",
    [
        *[{"size": 0}, {"size": (3, 0)}, {"size": (1, 2, 3)}, {"size": 2.5}, {"size": True}, {"policy": "stretch"}],
        *[{"crop_pct": 0}, {"crop_pct": 1.01}, {"crop_pct": "x"}, {"interpolation": "lanczos9"}, {"fill": (1, 2)}],
        *[{"fill": (1, 2, 300)}],
    ],
)
def test_settings_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"ResizeAdapter: {next(iter(bad))} must"):
        ResizeAdapter(**bad)


@pytest.mark.parametrize(
    "image",
    [
        *[np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), "path.jpg"],
        *[torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.uint8)],
    ],
)
def test_anything_but_a_uint8_image_is_refused(image: Any) -> None:
    with pytest.raises(UsageError, match="expected"):
        ResizeAdapter(8)(image)
