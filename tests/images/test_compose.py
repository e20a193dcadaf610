"""The composed preprocessing: its steps, its saved form, its use in other libraries and in worker processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from tests.images.samples import file_of, textured
from visionadapt import images
from visionadapt.errors import ImageError, SpecError, UsageError
from visionadapt.images import (
    DecodeAdapter,
    NormalizeAdapter,
    Preprocessing,
    ResizeAdapter,
    augmentation,
    compose,
    preview,
)

PREPARE = compose(ResizeAdapter(32, "letterbox"), NormalizeAdapter((0.5, 0.4, 0.3), 0.25))
IMAGE = textured(50, 70)
FILE = file_of(Image.fromarray(IMAGE), "PNG")


def test_every_kind_of_image_gives_the_same_values(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(FILE)
    expected = PREPARE(FILE)
    assert expected.shape == (3, 32, 32) and expected.dtype == torch.float32
    tensor = torch.from_numpy(IMAGE).permute(2, 0, 1)
    for image in (path, str(path), Image.fromarray(IMAGE), tensor):
        assert torch.equal(PREPARE(image), expected)
    array = PREPARE(IMAGE)
    assert isinstance(array, np.ndarray) and np.array_equal(array, expected.permute(1, 2, 0).numpy())
    assert isinstance(compose(ResizeAdapter(8))(Image.fromarray(IMAGE)), Image.Image)


def test_host_and_device_make_up_the_whole(tmp_path: Path) -> None:
    for image in (FILE, Image.fromarray(IMAGE), IMAGE):
        host = PREPARE.host(image)
        assert host.dtype == torch.uint8 and host.shape == (3, 32, 32) and host.is_contiguous()
        assert torch.equal(PREPARE.device(host[None])[0], PREPARE(FILE))
    decoded = PREPARE.decode.decode(FILE, "image.png").pixels
    assert torch.equal(PREPARE.after_decode(decoded), PREPARE.host(FILE))


def test_augmentation_runs_between_decode_and_resize() -> None:
    seen = []

    def mirror(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(pixels.shape))
        return pixels.flip(-1)

    result = PREPARE.host(FILE, mirror)
    assert seen == [(3, 50, 70)] and torch.equal(result, PREPARE.host(np.ascontiguousarray(IMAGE[:, ::-1])))


def test_parts() -> None:
    assert PREPARE.decode == DecodeAdapter() and PREPARE.size == (32, 32)
    assert PREPARE.resize == ResizeAdapter(32, "letterbox") and PREPARE.normalize is not None
    bare = compose()
    assert bare.resize is bare.normalize is bare.size is None
    assert bare.host(FILE).shape == (3, 50, 70) and bare.device(torch.ones(1)).item() == 1


def test_order_is_kept_and_a_callable_is_a_step() -> None:
    prepare = compose(ResizeAdapter(32), v2.RandomHorizontalFlip(1.0), NormalizeAdapter(), torch.nn.Identity())
    assert torch.equal(prepare(FILE).flip(-1), compose(ResizeAdapter(32), NormalizeAdapter())(FILE))
    assert not prepare.serialisable
    with pytest.raises(SpecError, match="RandomHorizontalFlip"):
        prepare.to_json()


@pytest.mark.parametrize(
    "steps",
    [
        *[(ResizeAdapter(8), ResizeAdapter(9)), (ResizeAdapter(8), DecodeAdapter()), ("crop(224)",)],
        (NormalizeAdapter(), ResizeAdapter(8)),
    ],
)
def test_wrong_steps_are_refused(steps: tuple[Any, ...]) -> None:
    with pytest.raises(SpecError):
        compose(*steps)
    with pytest.raises(SpecError, match="DecodeAdapter"):
        Preprocessing(())


@given(
    size=st.one_of(st.integers(1, 999), st.tuples(st.integers(1, 999), st.integers(1, 999))),
    policy=st.sampled_from(["crop", "squash", "letterbox"]),
    crop_pct=st.floats(0.01, 1),
    mean=st.one_of(st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=3, max_size=3)),
    std=st.floats(0.001, 9),
    background=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_json_round_trip(
    size: Any, policy: Any, crop_pct: float, mean: Any, std: float, background: tuple[int, int, int]
) -> None:
    prepare = compose(
        DecodeAdapter(background=background), ResizeAdapter(size, policy, crop_pct), NormalizeAdapter(mean, std)
    )
    text = json.dumps(prepare.to_json())
    assert Preprocessing.from_json(json.loads(text)) == prepare
    assert eval(repr(prepare), vars(images)) == prepare


@pytest.mark.parametrize(
    "change",
    [
        lambda steps: steps[1].update(step="os.system"),
        lambda steps: steps[1].update(colour="red"),
        lambda steps: steps[1].pop("policy"),
        lambda steps: steps[1].update(policy="stretch"),
        lambda steps: steps.pop(0),
        lambda steps: steps.append("crop(224)"),
        lambda steps: steps.append(steps[1]),
    ],
)
def test_saved_steps_are_checked(change: Any) -> None:
    steps = PREPARE.to_json()
    change(steps)
    with pytest.raises(SpecError):
        Preprocessing.from_json(steps)


def test_saved_steps_must_be_a_list() -> None:
    with pytest.raises(SpecError, match="list of steps, got dict"):
        Preprocessing.from_json({"step": "ResizeAdapter"})


def _prepare_in_worker(task: tuple[Preprocessing, bytes, Any]) -> bytes:
    prepare, data, augment = task
    return bytes(prepare.host(data, lambda pixels: augment(pixels, 7)).numpy().tobytes())


@pytest.mark.slow
def test_spawned_workers_give_the_same_bits() -> None:
    augment = augmentation("strong")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(_prepare_in_worker, [(PREPARE, FILE, augment)])
    assert found == [_prepare_in_worker((PREPARE, FILE, augment))]


def test_everything_can_be_pickled_and_hashed() -> None:
    for value in (PREPARE, DecodeAdapter(), ResizeAdapter(), NormalizeAdapter(), augmentation("light")):
        assert pickle.loads(pickle.dumps(value)) == value and hash(value) == hash(pickle.loads(pickle.dumps(value)))
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "is empty")))
    assert (error.file, error.reason) == ("a.jpg", "is empty")


def test_inside_albumentations() -> None:
    steps = [step.albumentations() for step in PREPARE.steps]  # type: ignore[attr-defined]
    import albumentations

    pipeline = albumentations.Compose([*steps[:2], albumentations.HorizontalFlip(p=1.0), steps[2]])
    result = pipeline(image=IMAGE)["image"]
    assert np.array_equal(result[:, ::-1], PREPARE(IMAGE))
    assert np.array_equal(pickle.loads(pickle.dumps(pipeline))(image=IMAGE)["image"], result)


@pytest.mark.filterwarnings("ignore:Got processor")
@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"mask": IMAGE[..., 0]}, {}),
        ({"masks": [IMAGE[..., 0]]}, {}),
        ({"bboxes": [(3, 1, 9, 8)], "labels": [1]}, {"bbox_params": ("BboxParams", "pascal_voc", ["labels"])}),
        ({"keypoints": [(3.0, 1.0)]}, {"keypoint_params": ("KeypointParams", "xy", None)}),
    ],
)
def test_what_lies_on_an_image_is_refused_where_it_is_resized(given: dict[str, Any], settings: dict[str, Any]) -> None:
    """Albumentations itself would leave masks and points where they were, and scale boxes by both sides' ratios."""
    import albumentations

    made = {
        name: getattr(albumentations, kind)(place, label_fields=fields)
        for name, (kind, place, fields) in settings.items()
    }
    (named, *_) = given
    with pytest.raises(UsageError, match=named):
        albumentations.Compose([ResizeAdapter(32).albumentations()], **made)(image=IMAGE, **given)
    only_image = albumentations.Compose([ResizeAdapter(32).albumentations()])(image=IMAGE)["image"]
    assert only_image.shape == (32, 32, 3)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_pil_images_are_for_the_decoder_alone(mode: str) -> None:
    deep = Image.fromarray(np.full((40, 40), 30_000, {"I": "i4", "F": "f4", "I;16": "u2"}[mode]))
    assert deep.mode == mode
    for use in (ResizeAdapter(32), lambda image: NormalizeAdapter.measure([image])):
        with pytest.raises(UsageError, match="DecodeAdapter"):
            use(deep)


def test_preview_shows_every_step(tmp_path: Path) -> None:
    for image in (FILE, Image.fromarray(IMAGE), IMAGE, torch.from_numpy(IMAGE).permute(2, 0, 1)):
        strip = np.asarray(preview(PREPARE, image, height=32))
        assert strip.shape[0] > 32 and strip.shape[2] == 3
        shown = PREPARE.host(FILE).permute(1, 2, 0).numpy()
        windows = np.lib.stride_tricks.sliding_window_view(strip[-32:], 32, axis=1).transpose(1, 0, 3, 2)
        found = [np.abs(window.astype(int) - shown).max() <= 1 for window in windows]
        assert sum(found) == 2, "the resized image and the inverse of the normalised one"


def test_random_state_is_not_touched_by_preprocessing() -> None:
    state = random.getstate(), torch.get_rng_state()
    PREPARE(FILE)
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])
