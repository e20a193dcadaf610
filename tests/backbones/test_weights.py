"""Weights are found in any wrapper, no code runs, and weights that do not fit are refused in one line."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from visionadapt.backbones import load
from visionadapt.backbones.packaged import check_sha256, packaged_file
from visionadapt.backbones.weights import read_tensors, weights_hash
from visionadapt.errors import BackboneError

from .conftest import smaller

Tensors = dict[str, Tensor]

SMALL = "test_resnet"
"""A real timm model like ResNet-18, with norms that count, of few weights."""


@pytest.fixture(scope="module")
def trained() -> Tensors:
    """A saved model with 10 classes and weights that differ from a new one."""
    torch.manual_seed(5)
    return timm.create_model(SMALL, num_classes=10).state_dict()


@pytest.fixture(scope="module")
def expected_hash(trained: Tensors) -> str:
    model = timm.create_model(SMALL, num_classes=0)
    model.load_state_dict({name: tensor for name, tensor in trained.items() if not name.startswith("fc.")})
    return weights_hash(model)


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def zeroed(tensors: Tensors) -> Tensors:
    return {name: 0 * tensor for name, tensor in tensors.items()}


def lightning(tensors: Tensors) -> dict[str, Any]:
    body = {f"backbone.{name}": tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    head = {"head.1.weight": torch.zeros(3, 512), "head.1.bias": torch.zeros(3)}
    return {"epoch": 3, "state_dict": {**body, **head}, "hyper_parameters": {"lr": 0.1}}


WRAPPINGS: dict[str, Callable[[Tensors], Any]] = {
    "bare": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 1},
    "model": lambda tensors: {"model": tensors, "args": argparse.Namespace(lr=0.1)},
    "model_ema": lambda tensors: {"model": {name: 0 * t for name, t in tensors.items()}, "model_ema": tensors},
    "state_dict_ema": lambda tensors: {"state_dict": {}, "state_dict_ema": tensors},
    "model in state_dict": lambda tensors: {"state_dict": {"model": tensors}},
    "module.": prefixed("module."),
    "module.model.": prefixed("module.model."),
    "_orig_mod.": prefixed("_orig_mod."),
    "model.backbone.": prefixed("model.backbone."),
    "lightning": lightning,
    "model_state_dict": lambda tensors: {
        "epoch": 2,
        "model_state_dict": tensors,
        "optimizer_state_dict": {"state": {}},
    },
    "net": lambda tensors: {"net": tensors, "acc": 93.1},
    "teacher": lambda tensors: {"student": zeroed(tensors), "teacher": prefixed("module.backbone.")(tensors)},
    "ema": lambda tensors: {"model": zeroed(tensors), "ema": {"decay": 0.999, "module": tensors}},
    "params": lambda tensors: {"params": tensors},
    "params_ema": lambda tensors: {"params": zeroed(tensors), "params_ema": tensors},
    "an empty average": lambda tensors: {"state_dict": tensors, "ema": {"decay": 0.999, "updates": 10}},
    "lightning with more": lambda tensors: {
        "state_dict": {**prefixed("net.")(tensors), "criterion.weight": torch.ones(10), "metric.total": torch.zeros(())}
    },
    "two copies": lambda tensors: prefixed("student.encoder.")(zeroed(tensors)) | prefixed("ema.encoder.")(tensors),
    "without counters": lambda tensors: {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_every_wrapping_gives_the_same_weights(
    wrapping: str, suffix: str, trained: Tensors, expected_hash: str, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    torch.save(WRAPPINGS[wrapping](trained), file)
    assert load(SMALL, file, 32).weights_hash == expected_hash


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_safetensors(prefix: str, trained: Tensors, expected_hash: str, tmp_path: Path) -> None:
    save_file(prefixed(prefix)(trained), tmp_path / "weights.safetensors")
    assert load(SMALL, tmp_path / "weights.safetensors", 32).weights_hash == expected_hash
    assert load(SMALL, str(tmp_path / "weights.safetensors"), 32).weights_hash == expected_hash


class _WritesAFile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_that_would_run_code_is_refused_and_runs_none(inside: bool, trained: Tensors, tmp_path: Path) -> None:
    trap, proof = tmp_path / "weights.pth", tmp_path / "proof"
    if inside:
        torch.save({"state_dict": trained, "extra": _WritesAFile(proof)}, trap)
    else:
        trap.write_bytes(pickle.dumps(_WritesAFile(proof)))
    with pytest.raises(BackboneError, match=r"weights\.pth.*\.safetensors") as caught:
        load(SMALL, trap, 32)
    assert "\n" not in str(caught.value)
    assert not proof.exists()
    torch.load(trap, weights_only=False) if inside else pickle.loads(trap.read_bytes())
    assert proof.exists(), "the trap itself must work"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pth", b""),
        ("text.pth", b"not weights at all"),
        ("cut.safetensors", struct.pack("<Q", 1000) + b"{"),
        ("numbers.pth", pickle.dumps({"epoch": 3})),
    ],
)
def test_damaged_files_are_refused_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BackboneError, match=name) as caught:
        load("resnet18", tmp_path / name, 32)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"nowhere\.pth.*--weights"):
        load("resnet18", tmp_path / "nowhere.pth", 32)


def test_tensors_that_do_not_fit_are_named_and_counted(tmp_path: Path) -> None:
    trained = timm.create_model("resnet18", num_classes=10).state_dict()
    changed = {name: tensor for name, tensor in trained.items() if not name.startswith("layer4.1.conv")}
    changed["layer9.weight"] = torch.zeros(3)
    changed["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(changed, tmp_path / "weights.pth")
    with pytest.raises(BackboneError) as caught:
        load("resnet18", tmp_path / "weights.pth", 32)
    message = str(caught.value)
    assert "2 missing (layer4.1.conv1.weight, layer4.1.conv2.weight)" in message
    assert "1 unexpected (layer9.weight)" in message
    assert "1 misshapen (conv1.weight [64, 3, 3, 3] for [64, 3, 7, 7])" in message
    assert "\n" not in message


@pytest.mark.slow
def test_weights_of_another_model_are_refused(trained: Tensors, tmp_path: Path) -> None:
    torch.save(trained, tmp_path / "weights.pth")
    for other in ("resnet34", "vit_tiny_patch16_224", "tf_efficientnet_lite0"):
        with pytest.raises(BackboneError, match=r"weights\.pth.*: \d+ missing"):
            load(other, tmp_path / "weights.pth", 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "own", "wanted"),
    [
        ("vit_tiny_patch16_224", 224, 96),
        ("deit_tiny_distilled_patch16_224", 224, 64),
        ("swin_tiny_patch4_window7_224", 224, 160),
        ("swinv2_tiny_window8_256", 256, 96),
        ("beit_base_patch16_224", 224, 64),
        ("eva02_tiny_patch14_224", 224, 56),
        ("vit_small_patch16_dinov3", 256, 64),
    ],
)
def test_position_embeddings_follow_the_image_size(name: str, own: int, wanted: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with smaller(name):
        source = timm.create_model(name).state_dict()
        save_file(source, tmp_path / "weights.safetensors")
        backbone = load(name, tmp_path / "weights.safetensors", wanted)
    assert backbone.config.image_size == wanted
    loaded = backbone.model.state_dict()
    resized = {key for key, tensor in loaded.items() if tensor.shape != source[key].shape}
    assert all("pos" in key or "relative" in key for key in resized)
    assert all(torch.equal(loaded[key], source[key]) for key in loaded.keys() - resized)
    pixels = torch.randn(1, 3, wanted, wanted)
    assert torch.equal(backbone(pixels), backbone.model(pixels))
    if name == "vit_tiny_patch16_224":
        assert loaded["pos_embed"].shape == (1, 1 + 6 * 6, 192)
        torch.testing.assert_close(loaded["pos_embed"][:, 0], source["pos_embed"][:, 0])


def test_the_packaged_default_fits_tensor_by_tensor() -> None:
    file = packaged_file("tf_efficientnet_lite0")
    assert file is not None
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("57934424")  # as the file's own name says
    given = torch.load(file, weights_only=True)
    backbone = load("tf_efficientnet_lite0")
    loaded = backbone.model.state_dict()
    pairs = [
        [tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")]
        for tensors in (given, loaded)
    ]
    assert len(pairs[0]) == 247
    assert len(pairs[1]) == 245  # without the classifier's two
    assert all(torch.equal(one, other) for one, other in zip(pairs[0][:245], pairs[1], strict=True))
    assert backbone.weights_hash == "3397d49c531fce5bfef9b6f0fff47d04d12f09dc71cd27bb04946ab00ff8f16e"
    assert backbone.config.mean == backbone.config.std == (0.5, 0.5, 0.5)


def test_a_changed_file_does_not_pass_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"changed")
    with pytest.raises(BackboneError, match=r"SHA-256 is d67e2e94.*: reinstall it"):
        check_sha256(file, hashlib.sha256(b"original").hexdigest(), "reinstall it")
    check_sha256(file, hashlib.sha256(b"changed").hexdigest(), "reinstall it")


def test_the_hash_sees_names_shapes_dtypes_and_every_bit() -> None:
    def hashed(tensor: Tensor, name: str = "weight") -> str:
        module = torch.nn.Module()
        module.register_buffer(name, tensor)
        return weights_hash(module)

    base = torch.zeros(2, 3)
    last_bit = base.clone()
    last_bit[1, 2] = 1e-45
    others = [hashed(base.reshape(3, 2)), hashed(base.half()), hashed(base, "bias"), hashed(last_bit), hashed(-base)]
    assert len({hashed(base), *others}) == 6
    assert hashed(base) == hashed(base.t().contiguous().t())


@pytest.mark.slow
def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused_unread(tmp_path: Path) -> None:
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"weight": torch.zeros(3)}, plain)
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name in given.namelist():
            made.writestr(name, bytes(200_000_000) if "data/" in name else given.read(name))
    assert torch.equal(read_tensors(plain)["weight"], torch.zeros(3))
    with pytest.raises(BackboneError, match=r"bomb\.pth.*400,0"):
        read_tensors(bomb)
