"""`Predictor` and `Prediction`: every kind of input, probabilities, features, best classes, short `repr`s."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import visionadapt as va
from visionadapt.errors import ImageError, UsageError
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.planning import make_plan
from visionadapt.prediction.calibration import Calibration
from visionadapt.sources import FolderSource
from visionadapt.sources.opening import manifest_of

from ..conftest import SMALL_BACKBONE, tinted

CLASSES = ("blood", "grass", "sky")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> va.Predictor:
    """A classifier with an adapter layer, random weights and a temperature, through a run folder."""
    model = va.classifier(SMALL_BACKBONE, CLASSES, "bottleneck(rank=2, blocks=last:1)", "none", 32)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.linear.weight)
    model.plan = make_plan(FrozenPart(model), va.TrainingSettings(device="cpu", precision="float32")).to_json()
    run = tmp_path_factory.mktemp("runs") / "run"
    calibration = Calibration(temperature=1.7, threshold=0.5, images=10)
    return va.load(va.save(run, model, va.preprocessing_for(model), weights="none", calibration=calibration))


@pytest.fixture
def images() -> list[Image.Image]:
    return [tinted((40, 40), number, number) for number in range(5)]


@pytest.fixture
def folder(images: list[Image.Image], tmp_path: Path) -> Path:
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    return tmp_path


KINDS: dict[str, Callable[[list[Image.Image], Path], Any]] = {
    "list of paths": lambda images, folder: [folder / f"{number}.png" for number in range(5)],
    "tuple of strings": lambda images, folder: tuple(str(folder / f"{number}.png") for number in range(5)),
    "list of bytes": lambda images, folder: [path.read_bytes() for path in sorted(folder.iterdir())],
    "list of PIL images": lambda images, folder: images,
    "list of mixed kinds": lambda images, folder: [folder / "0.png", images[1], *map(np.array, images[2:])],
    "generator": lambda images, folder: (image for image in images),
    "iterator": lambda images, folder: iter(images),
    "array [N, H, W, C]": lambda images, folder: np.stack([np.array(image) for image in images]),
    "tensor [N, C, H, W]": lambda images, folder: batch_of(images),
    "path of a folder": lambda images, folder: folder,
    "name of a folder": lambda images, folder: str(folder),
    "source": lambda images, folder: FolderSource(folder, labelled=False),
    "manifest": lambda images, folder: manifest_of(FolderSource(folder, labelled=False)),
}


def batch_of(images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_several_images(
    predictor: va.Predictor, images: list[Image.Image], folder: Path, kind: str
) -> None:
    expected = [each.probabilities for each in predictor.predict(images)]
    alone = [predictor.predict(image).probabilities for image in images]
    assert np.array(expected) == pytest.approx(np.array(alone), abs=1e-5)
    found = predictor.predict(KINDS[kind](images, folder))
    assert isinstance(found, list)
    assert [each.probabilities for each in found] == expected
    probabilities = predictor.predict_proba(KINDS[kind](images, folder))
    assert isinstance(probabilities, np.ndarray) and probabilities.dtype == np.float32
    assert np.array_equal(probabilities, np.array(expected, dtype=np.float32))
    features = predictor.features(KINDS[kind](images, folder))
    assert features.shape == (5, predictor.classifier.backbone.num_features)
    assert np.array_equal(features, predictor.features(images))


@pytest.mark.parametrize(
    "one",
    [
        lambda image, path: path,
        lambda image, path: str(path),
        lambda image, path: path.read_bytes(),
        lambda image, path: image,
        lambda image, path: np.array(image),
        lambda image, path: batch_of([image])[0],
    ],
)
def test_every_kind_of_single_image(
    predictor: va.Predictor, images: list[Image.Image], folder: Path, one: Callable[..., Any]
) -> None:
    expected = predictor.predict(images[2])
    assert predictor.predict(images)[2].probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    found = predictor.predict(one(images[2], folder / "2.png"))
    assert found.probabilities == expected.probabilities
    probabilities = predictor.predict_proba(one(images[2], folder / "2.png"))
    assert np.array_equal(probabilities, np.array([expected.probabilities], dtype=np.float32))
    assert predictor.features(one(images[2], folder / "2.png")).shape == (1, predictor.classifier.backbone.num_features)


def test_a_grey_array_is_one_image(predictor: va.Predictor, images: list[Image.Image]) -> None:
    grey = images[0].convert("L")
    assert predictor.predict(np.array(grey)).probabilities == predictor.predict(grey).probabilities


def test_probabilities_and_features_are_those_of_the_plain_module(
    predictor: va.Predictor, images: list[Image.Image]
) -> None:
    model, prepare = predictor.classifier, predictor.prepare
    pixels = prepare.device(torch.stack([prepare.host(image) for image in images]))
    with torch.inference_mode():
        features = model.features({"x": pixels}, 0)
        logits = model(pixels)
    assert predictor.features(images) == pytest.approx(features.numpy(), rel=1e-4, abs=1e-5)
    expected = torch.softmax(logits.double() / 1.7, 1).numpy()
    assert predictor.predict_proba(images) == pytest.approx(expected, abs=1e-6)
    assert predictor.predict_proba(images).sum(1) == pytest.approx(np.ones(5), abs=1e-6)


def test_no_images_at_all(predictor: va.Predictor, tmp_path: Path) -> None:
    assert predictor.predict([]) == predictor.predict(tmp_path) == predictor.predict(iter(())) == []
    assert predictor.predict_proba([]).shape == (0, 3)
    assert predictor.features(iter(())).shape == (0, predictor.classifier.backbone.num_features)


def test_an_image_that_cannot_be_used(predictor: va.Predictor, images: list[Image.Image], folder: Path) -> None:
    (folder / "3.png").write_bytes(b"no image")
    found = predictor.predict(folder)
    assert [Path(each.file).name for each in found if each.problem] == ["3.png"]
    assert (found[3].label, found[3].probabilities, found[3].top(2)) == (None, (), [])
    assert [each.problem is None for each in predictor.predict([b"", images[0]])] == [False, True]
    assert all(each.problem for each in predictor.predict([b"", b""]))
    for use in (predictor.predict_proba, predictor.features):
        for several in (folder, [folder / "0.png", folder / "3.png"], FolderSource(folder, labelled=False)):
            with pytest.raises(ImageError, match=r"3\.png"):
                use(several)
        with pytest.raises(ImageError, match=r"images\[1\]: is empty"):
            use([images[0], b""])
    for use in (predictor.predict, predictor.predict_proba, predictor.features):
        with pytest.raises(ImageError, match=r"3\.png") as caught:
            use(folder / "3.png")
        assert caught.value.file == str(folder / "3.png")
        for wrong in (7, None, io.BytesIO(b"x")):
            with pytest.raises(ImageError, match="path, bytes, PIL image, array or tensor"):
                use(wrong)


@pytest.mark.slow
def test_a_generator_is_read_batch_by_batch(predictor: va.Predictor) -> None:
    count, size = 100, predictor.plan.prefix_batch
    assert size < count / 2
    alive: list[weakref.ref[Image.Image]] = []
    most = 0

    def made() -> Iterator[Image.Image]:
        nonlocal most
        for number in range(count):
            image = tinted((40, 40), number, number)
            alive.append(weakref.ref(image))
            assert sum(each() is not None for each in alive) <= 2
            if number % 10 == 9:
                shapes = [each.shape for each in gc.get_objects() if type(each) is torch.Tensor]
                most = max(most, shapes.count((3, 32, 32)))
            yield image
            del image

    found = predictor.predict(made())
    assert len(found) == count and all(each.problem is None for each in found)
    assert size / 2 < most <= 2 * size + 2 < count, "at most two tensors for each image of a batch"


def test_top_is_numpy_s_order(predictor: va.Predictor, images: list[Image.Image]) -> None:
    for prediction in predictor.predict(images):
        order = np.argsort(-np.array(prediction.probabilities), kind="stable")
        expected = [(CLASSES[place], prediction.probabilities[place]) for place in order]
        assert prediction.top(1) == [(prediction.label, prediction.probability)] == expected[:1]
        assert prediction.top(2) == expected[:2]
        assert prediction.top() == prediction.top(3) == prediction.top(99) == expected
        for wrong in (0, -1):
            with pytest.raises(UsageError, match=rf"top\({wrong}\)"):
                prediction.top(wrong)


def test_top_of_equal_probabilities_keeps_the_order_of_the_classes() -> None:
    prediction = va.Prediction("", "b", 0.4, (0.2, 0.4, 0.4), classes=("a", "b", "c"))
    assert prediction.top(3) == [("b", 0.4), ("c", 0.4), ("a", 0.2)]


@given(
    st.text(max_size=300),
    st.lists(st.text(max_size=80), min_size=1, max_size=5),
    st.none() | st.text(max_size=300),
    st.booleans(),
    st.floats(),
)
def test_a_prediction_is_shown_in_one_short_line(
    file: str, labels: list[str], problem: str | None, abstain: bool, distance: float
) -> None:
    probabilities = tuple(1 / 1000 for _ in range(1000))
    shown = repr(
        va.Prediction(file, labels[0], 0.1, probabilities, abstain, distance, problem, tuple(labels), ("x",) * 1000)
    )
    assert len(shown) <= 120
    assert shown.isprintable()
    assert shown.startswith("Prediction(") and shown.endswith(")")


def test_what_is_shown(predictor: va.Predictor, images: list[Image.Image]) -> None:
    assert repr(va.Prediction("a.jpg", "cat", 0.98765, (0.98765,), labels=("cat",))) == (
        "Prediction('a.jpg', 'cat', 0.9877)"
    )
    several = va.Prediction("a.jpg", "cat", 0.9, (0.9, 0.8), True, 1.234, labels=("cat", "dog"))
    assert repr(several) == "Prediction('a.jpg', labels=('cat', 'dog'), abstain, distance 1.23)"
    assert repr(va.Prediction("a.jpg", problem="is empty")) == "Prediction('a.jpg', problem='is empty')"
    shown = repr(predictor)
    assert len(shown) <= 120 and "\n" not in shown
    assert all(word in shown for word in (SMALL_BACKBONE, "3 classes", "single", "cpu", "bottleneck"))
