"""Small models that the adapter tests share."""

from __future__ import annotations

from dataclasses import replace

import timm
import torch
from torch import Tensor, nn

from visionadapt.adapters import find_sites
from visionadapt.core.sites import Site


def vit(classes: int = 5, depth: int = 4, width: int = 24, size: int = 16) -> nn.Module:
    """A ViT of 8×8 px patches in eval mode."""
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=size,
        patch_size=8,
        embed_dim=width,
        num_heads=2,
        depth=depth,
        num_classes=classes,
    ).eval()


def pixels(count: int = 2, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def fused(sites: list[Site]) -> list[Site]:
    """The sites with q, k and v named on every `qkv`."""
    return [
        replace(site, rows={part: slice(i * site.dim // 3, (i + 1) * site.dim // 3) for i, part in enumerate("qkv")})
        if site.name.endswith("qkv")
        else site
        for site in sites
    ]


def sites_of(model: nn.Module) -> list[Site]:
    """The sites of a timm ViT, its attentions and their q, k and v included."""
    sites = fused(find_sites(model))
    for index, block in enumerate(model.blocks):
        attention = Site(f"blocks.{index}.attn", block.attn, "attention", "NLC", block.attn.proj.out_features, index)
        before = next(i for i, site in enumerate(sites) if site.name == f"{attention.name}.qkv")
        sites.insert(before, attention)
    return [replace(site, prefix_tokens=1) if site.kind in ("block", "attention") else site for site in sites]


def encoder(layers: int = 3) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, layers).eval()


def randomise(model: nn.Module) -> None:
    """Give every trainable parameter a value that is not its start value."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
