"""Images of one channel, and of more than three, from files to evaluated predictions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import visionadapt as va
from tests.conftest import SMALL_BACKBONE
from tests.images.samples import file_of, textured, tiff
from visionadapt import backbones
from visionadapt.errors import BackboneError, ImageError, SpecError, UsageError
from visionadapt.images import Augmentation, DecodeAdapter, Preprocessing
from visionadapt.images.preview import preview

Run = Callable[..., tuple[int, str]]
QUICK = ("--backbone", SMALL_BACKBONE, "--weights", "none", "--image-size", "64", "--workers", "0", "--adapter", "none")
LITE = "tf_efficientnet_lite0"
BANDS = "1,2,3,4,5"


@pytest.mark.slow
def test_the_first_convolution_is_adapted_from_three_channels() -> None:
    """One channel: the sum over red, green and blue; five: repeated, times 3/5."""
    three: Any = backbones.load(LITE).model
    weight = three.conv_stem.weight
    one: Any = backbones.load(LITE, channels=1)
    five: Any = backbones.load(LITE, channels=5)
    assert torch.allclose(one.model.conv_stem.weight, weight.sum(1, keepdim=True), atol=1e-6)
    assert torch.allclose(five.model.conv_stem.weight, weight[:, [0, 1, 2, 0, 1]] * 3 / 5, atol=1e-6)
    assert torch.equal(one.model.conv_head.weight, three.conv_head.weight)
    hashes = {backbone.weights_hash for backbone in (one, five)}
    assert len(hashes) == 2 and five.blank_pixels().shape[1] == 5
    with pytest.raises(BackboneError, match="channels"):
        one(torch.zeros(1, 3, 224, 224))
    with pytest.raises(BackboneError, match="channel"):
        backbones.load(LITE, "none", channels=0)


@pytest.mark.slow
def test_mean_and_std_belong_to_the_channels_that_the_weights_come_from() -> None:
    own = timm.get_pretrained_cfg("resnet18").mean
    config = {channels: backbones.load("resnet18", "none", channels=channels).config for channels in (1, 2, 4)}
    assert config[1].mean == pytest.approx((sum(own) / 3,))
    assert config[2].mean == own[:2] and config[4].mean == (*own, own[0])
    assert len(config[4].std) == 4


@pytest.mark.slow
def test_a_grey_image_has_the_features_of_its_three_equal_channels() -> None:
    """The mean and standard deviation of this backbone are the same for every channel, so the two are equal."""
    grey = Image.fromarray(textured(90, 120)).convert("L")
    found = []
    for channels in (1, 3):
        backbone = backbones.load(LITE, channels=channels)
        prepare = va.preprocessing_for(backbone)
        pixels = prepare.host(file_of(grey, "PNG"))
        assert pixels.shape[0] == channels
        with torch.no_grad():
            found.append(backbone(prepare.device(pixels[None])))
    assert torch.allclose(*found, atol=1e-3 * float(found[1].abs().max()))


def test_channels_of_every_kind_of_input() -> None:
    image = textured(20, 30)
    grey, two = DecodeAdapter(channels=1), DecodeAdapter(channels=2, bands=(3, 1))
    luma = np.asarray(Image.fromarray(image).convert("L"))
    assert np.array_equal(grey(file_of(Image.fromarray(image), "PNG"))[0].numpy(), luma)
    assert np.array_equal(grey(image)[..., 0], luma) and grey(image).shape == (20, 30, 1)
    assert np.array_equal(grey(torch.from_numpy(image).permute(2, 0, 1))[0].numpy(), luma)
    assert np.array_equal(grey(Image.fromarray(image))[0].numpy(), luma)
    for given in (image, file_of(Image.fromarray(image), "PNG"), Image.fromarray(image)):
        read: Any = two(given)  # type: ignore[call-overload]
        assert np.array_equal(read if given is image else read.permute(1, 2, 0).numpy(), image[:, :, [2, 0]])
    four = np.dstack([image, image[:, :, 0] // 2])
    saved = file_of(Image.fromarray(four), "PNG")
    read = DecodeAdapter(channels=4, bands=(1, 2, 3, 4))(saved)
    assert np.array_equal(read.permute(1, 2, 0).numpy(), four)
    with pytest.raises(ImageError, match="bands"):
        DecodeAdapter(channels=4, bands=(1, 2, 3, 4))(image)
    for wrong in ({"channels": 5}, {"channels": 2, "bands": (1, 2, 3)}, {"bands": (1, 2)}, {"channels": 0}):
        with pytest.raises(SpecError):
            DecodeAdapter(**wrong)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_augmentation_keeps_the_channels(channels: int) -> None:
    pixels = torch.randint(0, 256, (channels, 40, 50), dtype=torch.uint8)
    for name in ("light", "strong"):
        assert all(len(Augmentation(name)(pixels, seed)) == channels for seed in range(40))


def test_preprocessing_with_channels_is_saved_and_shown() -> None:
    backbone = backbones.load(SMALL_BACKBONE, "none", 64, channels=5)
    prepare = va.preprocessing_for(backbone, bands=BANDS)
    assert Preprocessing.from_json(json.loads(json.dumps(prepare.to_json()))) == prepare
    assert "channels" not in va.preprocessing_for(SMALL_BACKBONE).to_json()[0]
    assert preview(prepare, np.zeros((30, 40, 5), np.uint8)).width > 100
    for bands in (None, "1,2", "1,2,3"):
        with pytest.raises(UsageError, match="--bands"):
            va.preprocessing_for(backbone, bands=bands)


def written(root: Path, channels: int) -> Path:
    """Two classes of ten images each, which differ in the last channel only: dark or light."""
    for label in range(2):
        (root / "ab"[label]).mkdir(parents=True)
        for number in range(10):
            values = np.random.default_rng(10 * label + number).integers(0, 256, (40, 50, channels), np.uint8)
            values[..., -1] = values[..., -1] // 4 + 180 * label
            data = tiff(values) if channels > 1 else file_of(Image.fromarray(values[..., 0]), "PNG")
            (root / "ab"[label] / f"{number}.{'tif' if channels > 1 else 'png'}").write_bytes(data)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 5])
def test_a_run_on_channels_from_files_to_evaluation(visionadapt: Run, tmp_path: Path, channels: int) -> None:
    data, run = written(tmp_path / "data", channels), tmp_path / "run"
    bands = ("--bands", BANDS) if channels == 5 else ()
    cache = ("--cache", tmp_path / "cache")
    options = ("--channels", channels, *bands, "--epochs", 5, "--augment", "strong", *cache)
    code, output = visionadapt("train", "--data", data, "--out", run, *QUICK, *options)
    assert code == 0, output
    assert (run / "report.html").exists() and json.loads((run / "summary.json").read_text())["golden_difference"] < 1e-4
    predictor = va.load(run)
    assert predictor.prepare.decode.channels == channels == predictor.classifier.backbone.config.channels
    code, output = visionadapt("predict", run, data, "--out", tmp_path / "p.csv", "--workers", 0)
    assert code == 0, output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    right = [row for row in rows if row["label"] == row["file"].split("/")[-2]]
    assert len(rows) == 20 and len(right) >= 18
    code, output = visionadapt("evaluate", run, "--data", data, "--out", tmp_path / "e", "--workers", 0)
    assert code == 0, output
    if channels == 5:
        code, output = visionadapt("train", "--data", data, "--out", tmp_path / "x", *QUICK, "--channels", 4)
        assert code == 2 and "--bands 1,2,3,4" in output
        spaces = len(list((tmp_path / "cache").iterdir()))
        other = ("--channels", 5, "--bands", "5,4,3,2,1", "--epochs", 1, *cache)
        assert visionadapt("train", "--data", data, "--out", tmp_path / "y", *QUICK, *other)[0] == 0
        assert len(list((tmp_path / "cache").iterdir())) > spaces
