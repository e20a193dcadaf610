"""A trained classifier as timm's own model: timm loads it strictly, and it gives the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

import visionadapt as va
from visionadapt.errors import AdapterError, UsageError


def trained(name: str, adapter: str | None, size: int) -> va.Classifier:
    """A classifier whose adapters and head are not as they began."""
    model = va.classifier(name, ("a", "b", "c"), adapter, weights="none", image_size=size)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    count = model.backbone.num_features
    model.head.set_statistics(torch.rand(count, generator=generator), 0.1 + torch.rand(count, generator=generator))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "adapter", "size"),
    [
        ("test_efficientnet", None, 64),
        ("test_efficientnet", "lora(rank=2)", 64),
        ("test_vit", "lora(rank=2)", 160),
        ("test_convnext", "dora(rank=2)", 64),
        ("mobilenetv3_small_050", "norm", 64),
        ("deit_tiny_distilled_patch16_224", "bitfit", 224),
    ],
)
def test_timm_loads_it_strictly_and_gives_the_same_logits(name: str, adapter: str | None, size: int) -> None:
    model = trained(name, adapter, size)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plain = timm.create_model(name, num_classes=3).eval()
    plain.load_state_dict(va.timm_model(model).state_dict(), strict=True)
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels), model(pixels), atol=2e-4, rtol=1e-4)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_timm_s_own_folder_holds_it(tmp_path: Path) -> None:
    model = trained("test_efficientnet", "lora(rank=2)", 64)
    save_for_hf(va.timm_model(model), tmp_path, model_args={}, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(pixels), model(pixels), atol=2e-4, rtol=1e-4)


def test_what_timm_s_model_cannot_hold_is_refused() -> None:
    with pytest.raises(AdapterError, match="cannot be merged"):
        va.timm_model(trained("test_efficientnet", "bottleneck(rank=2)", 64))
    with pytest.raises(UsageError, match=r"cannot hold the merged weights: it differs in .*bias; train with .*lora"):
        va.timm_model(trained("test_resnet", "ssf", 64))


def test_a_head_that_computes_something_else_is_refused() -> None:
    model = trained("test_efficientnet", None, 64)
    model.backbone.model.forward_head = lambda maps: maps.amax((2, 3))
    with pytest.raises(UsageError, match="computes something else"):
        va.timm_model(model)
