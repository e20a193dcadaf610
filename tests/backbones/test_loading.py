"""Loading: names, image sizes, seeds, the hub, and what stays in eval mode."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from visionadapt.backbones import Backbone, default_name, load
from visionadapt.errors import BackboneError

from .. import forked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"'resnet19'.*resnet18"),
        ("zzz", r"'zzz'"),
        ("resnet18.a9_in1k", r"'resnet18'.*'a9_in1k'.*a1_in1k"),
        ("hf-hub:someone/model", "'hf-hub:someone/model'.*--weights"),
        ("local-dir:/tmp", "'local-dir:/tmp'.*--weights"),
    ],
)
def test_unknown_names_are_refused_with_similar_ones(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message) as caught:
        load(name, "none")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_tiny_patch16_224", 100, "multiple of 16, or its own 224"),
        ("vit_small_patch14_reg4_dinov2", 224 + 1, "multiple of 14"),
        ("maxvit_tiny_tf_224", 80, "multiple of 32"),
        ("swin_tiny_patch4_window7_224", 70, "multiple of 32"),
        ("resnet18", 0, "multiple of 32"),
        ("inception_v3", 30, "its own 299"),
    ],
)
def test_impossible_image_sizes_are_refused_with_a_possible_one(name: str, size: int, message: str) -> None:
    with pytest.raises(BackboneError, match=message) as caught:
        load(name, "none", size)
    assert "\n" not in str(caught.value)


def test_without_a_hub_one_line_lists_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(BackboneError) as caught:
        load("resnet18")
    assert time.monotonic() - started < 20
    assert str(caught.value) == (
        "cannot get pretrained weights of 'resnet18', no model hub can be reached: "
        "use one of --backbone tf_efficientnet_lite0, --weights FILE, --weights none"
    )


@pytest.mark.slow
def test_an_unreachable_hub_fails_fast_and_silently(tmp_path: Path) -> None:
    """In a separate process: nothing of this one may be left without a network."""
    script = tmp_path / "script.py"
    script.write_text(
        "import socket\n"
        "def refuse(*_, **__): raise OSError('no network here')\n"
        "socket.getaddrinfo = refuse\n"
        "from visionadapt.backbones import load\n"
        "from visionadapt.errors import BackboneError\n"
        "try:\n"
        "    load('resnet18')\n"
        "except BackboneError as error:\n"
        "    print(error)\n"
    )
    done = forked.run(str(script), timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("cannot get pretrained weights of 'resnet18', no model hub can be reached")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_a_model_without_published_weights_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"'nfnet_f0'.*--weights"):
        load("nfnet_f0")


@pytest.mark.slow
def test_random_weights_depend_only_on_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = load("resnet18", "none", 32, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert load("resnet18", "none", 32, seed=3).weights_hash == first.weights_hash
    assert load("resnet18", "none", 32, seed=4).weights_hash != first.weights_hash


@pytest.mark.slow
def test_the_configuration_is_the_models_own() -> None:
    backbone = load(default_name)
    own = timm.data.resolve_model_data_config(timm.create_model(default_name))
    assert (3, backbone.config.image_size, backbone.config.image_size) == own["input_size"]
    for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
        assert getattr(backbone.config, key) == own[key]
    assert load("resnet18", "none", 96).config.image_size == 96


def test_importing_the_package_loads_no_torch() -> None:
    code = (
        "import sys, visionadapt.backbones as b; assert b.default_name; assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def buffers(backbone: Backbone) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in backbone.buffers()]


def test_a_loaded_backbone_is_frozen_and_stays_in_eval() -> None:
    backbone = load(default_name, image_size=64)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    before = buffers(backbone)
    nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.model.modules())
    backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(one, other) for one, other in zip(before, buffers(backbone), strict=True))


def test_only_modules_that_learn_go_to_training_mode() -> None:
    backbone = load(default_name, "none", 64)
    last = backbone.anatomy.blocks[-1].module
    last.requires_grad_(True)
    backbone.train()
    learning = {module for module in last.modules() if list(module.parameters(recurse=False))}
    assert {module for module in backbone.model.modules() if module.training} == learning
    backbone.eval()
    assert not any(module.training for module in backbone.modules())


def test_measuring_sites_changes_neither_statistics_nor_mode() -> None:
    backbone = load(default_name, "none", 64)
    backbone.requires_grad_(True).train()
    before = buffers(backbone)
    training = {module for module in backbone.modules() if module.training}
    backbone.sites()
    backbone.cut_shapes()
    assert all(torch.equal(one, other) for one, other in zip(before, buffers(backbone), strict=True))
    assert {module for module in backbone.modules() if module.training} == training


def test_what_is_attached_follows_the_mode_as_usual() -> None:
    backbone = load("resnet18", "none", 32)
    backbone.model.layer1.add_module("attached", nn.Sequential(nn.Dropout(0.5)))
    backbone.train()
    assert backbone.model.layer1.attached[0].training
    assert not backbone.model.layer1.training
