"""Sites describe what hooks and replaced weights really get."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from visionadapt.backbones import Backbone, load
from visionadapt.backbones.convolutions import convolve_of, effective_weight_of
from visionadapt.core.sites import Site

AXIS = {"NLC": -1, "NHWC": -1, "NCHW": 1}


def outputs_of(backbone: Backbone, pixels: Tensor) -> dict[nn.Module, Tensor]:
    """Return the output of every site's module in one forward; modules that are never called are missing.

    They are copies: an activation after a module may overwrite its output.
    """
    seen: dict[nn.Module, Tensor] = {}
    handles = [
        site.module.register_forward_hook(lambda module, _, output: seen.__setitem__(module, output.clone()))
        for site in backbone.sites()
    ]
    with torch.no_grad():
        backbone(pixels)
    for handle in handles:
        handle.remove()
    return seen


def test_hooks_fire_exactly_at_called_sites(family: Backbone, pixels: Tensor) -> None:
    seen = outputs_of(family, pixels)
    for site in family.sites():
        assert site.called == (site.module in seen), site.name
        assert family.model.get_submodule(site.name) is site.module
        if site.called:
            assert seen[site.module].shape[AXIS[site.layout]] == site.dim, site.name
            assert seen[site.module].ndim == 4 or site.layout != "NHWC", site.name


def test_weights_that_are_only_read_receive_a_gradient(family: Backbone, pixels: Tensor) -> None:
    weights = {site.name: site.module.weight for site in family.sites() if not site.called}
    family_reads = family.name.startswith(("beit", "eva02", "swinv2"))
    assert len(weights) == (len(family.anatomy.blocks) if family_reads else 0)
    if not weights:
        return
    for weight in weights.values():
        weight.requires_grad_(True)
    gradients = torch.autograd.grad(family(pixels).square().sum(), list(weights.values()))
    for weight in weights.values():
        weight.requires_grad_(False)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_every_projection_inside_the_blocks_is_a_site(family: Backbone, pixels: Tensor) -> None:
    sites = {site.module: site for site in family.sites() if site.kind in ("linear", "conv")}
    for index, block in enumerate(family.anatomy.blocks):
        for root in (*block.before, block.module):
            for name, module in root.named_modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    assert sites[module].block == index, name
                    assert sites[module].stage == block.stage, name


def test_every_block_is_one_site(family: Backbone) -> None:
    blocks = [site for site in family.sites() if site.kind == "block"]
    assert [site.module for site in blocks] == [block.module for block in family.anatomy.blocks]
    assert [site.block for site in blocks] == list(range(len(blocks)))
    assert {site.prefix_tokens for site in blocks} == {family.anatomy.prefix_tokens}


@torch.no_grad()
def test_prefix_tokens_come_on_top_of_a_square_of_patches(family: Backbone, pixels: Tensor) -> None:
    tokens = [site for site in family.sites() if site.kind == "block" and site.layout == "NLC" and site.name]
    seen = outputs_of(family, pixels)
    for site in tokens:
        side = (seen[site.module].shape[1] - site.prefix_tokens) ** 0.5
        assert side == int(side)


FUSED = [
    "vit_tiny_patch16_224",
    "vit_small_patch16_dinov3",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "maxvit_tiny_tf_224",
]


@pytest.mark.parametrize("family", FUSED, indirect=True)
@torch.no_grad()
def test_rows_of_a_fused_weight_are_query_key_and_value(family: Backbone, pixels: Tensor) -> None:
    """Attention is linear in the values; doubling queries while halving keys leaves their product as it was."""
    site = [site for site in family.sites() if site.rows][-1]
    attention = family.model.get_submodule(site.name.rpartition(".")[0])
    kept: list[tuple[tuple[Tensor, ...], dict[str, Tensor]]] = []
    handle = attention.register_forward_pre_hook(
        lambda _, inputs, keywords: kept.append((inputs, keywords)), with_kwargs=True
    )
    family(pixels)
    handle.remove()
    inputs, keywords = kept[0]
    original = {name: tensor.clone() for name, tensor in attention.state_dict().items()}
    for name, tensor in attention.named_parameters():
        if name.endswith("bias") and name != "proj.bias" and "rel" not in name and "table" not in name:
            tensor.zero_()
    bias = attention.proj.bias
    shape = (-1, 1, 1) if site.layout == "NCHW" else (-1,)
    before = attention(*inputs, **keywords) - bias.reshape(shape)
    site.module.weight[site.rows["v"]] *= 3
    tripled = attention(*inputs, **keywords) - bias.reshape(shape)
    site.module.weight[site.rows["q"]] *= 2
    site.module.weight[site.rows["k"]] *= 0.5
    balanced = attention(*inputs, **keywords) - bias.reshape(shape)
    attention.load_state_dict(original)
    torch.testing.assert_close(tripled, 3 * before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(balanced, tripled, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_convolution_is_its_convolve_with_its_effective_weight(family: Backbone, pixels: Tensor) -> None:
    inputs: dict[nn.Module, Tensor] = {}
    sites = [site for site in family.sites() if site.kind == "conv"]
    handles = [
        site.module.register_forward_pre_hook(lambda module, args: inputs.__setitem__(module, args[0].clone()))
        for site in sites
    ]
    outputs = outputs_of(family, pixels)
    for handle in handles:
        handle.remove()
    for site in sites:
        expected = outputs[site.module]
        if site.module.bias is not None:
            expected = expected - site.module.bias.reshape(-1, 1, 1)
        repeated = repeat(site, inputs[site.module])
        torch.testing.assert_close(
            repeated, expected, rtol=1e-4, atol=1e-4, msg=lambda text, n=site.name: f"{n} {text}"
        )


def repeat(site: Site, x: Tensor) -> Tensor:
    """Run the site's own convolution with a given weight, as an adapter does."""
    module = site.module
    weight = module.weight if site.effective_weight is None else site.effective_weight(module)
    if site.convolve is not None:
        return site.convolve(module, x, weight)
    return F.conv2d(x, weight, None, module.stride, module.padding, module.dilation, module.groups)


@pytest.mark.parametrize("kind", [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, Conv2dSame])
@pytest.mark.parametrize(("stride", "groups", "dilation"), [(1, 1, 1), (2, 2, 1), (1, 4, 2), (2, 4, 1)])
@torch.no_grad()
def test_every_kind_of_convolution_is_repeated(kind: type[nn.Conv2d], stride: int, groups: int, dilation: int) -> None:
    torch.manual_seed(0)
    module = kind(4, 8, 3, stride=stride, groups=groups, dilation=dilation, bias=True)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 4, 11, 11)
    site = Site(
        "", module, "conv", "NCHW", 8, effective_weight=effective_weight_of(module), convolve=convolve_of(module)
    )
    expected = module(x) - module.bias.reshape(-1, 1, 1)
    torch.testing.assert_close(repeat(site, x), expected, rtol=1e-5, atol=1e-5)


def test_a_standardised_weight_has_mean_0_and_variance_1() -> None:
    module = StdConv2d(4, 8, 3)
    effective = effective_weight_of(module)
    assert effective is not None
    rows = effective(module).detach().reshape(8, -1)
    torch.testing.assert_close(rows.mean(1), torch.zeros(8), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.var(1, correction=0), torch.ones(8), atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", ["maxvit_rmlp_pico_rw_256", "coatnet_nano_rw_224"], indirect=True)
def test_projections_that_are_fused_head_by_head_have_no_rows(family: Backbone) -> None:
    fused = [site for site in family.sites() if site.name.endswith(".qkv")]
    assert fused
    assert not any(site.rows for site in fused)


@pytest.mark.slow
def test_published_parameter_counts_follow_from_the_sites_of_vit_base() -> None:
    sites = load("vit_base_patch16_224", "none", 32).sites()
    scaled = [site for site in sites if site.kind in ("linear", "conv", "norm")]
    assert sum(2 * site.dim for site in scaled) == 205_824  # SSF, Lian et al. 2022, table 1: 0.205 M
    rank, width = 8, 768
    lora = sum(
        rank * (width + rows.stop - rows.start) for site in sites for name, rows in site.rows.items() if name in "qv"
    )
    assert lora == 294_912  # Hu et al. 2022, table 2: r = 8 on queries and values of 12 layers, width 768
    adapter = sum(2 * site.dim * rank + rank + 2 * site.dim for site in sites if site.kind == "block")
    assert adapter == 165_984  # Adapter+, Steitz & Roth 2024: down, up, both biases and a scale per channel


@pytest.mark.slow
def test_kinds_and_blocks_of_the_sites_of_a_vision_transformer() -> None:
    sites = load("vit_tiny_patch16_224", "none", 32).sites()
    assert Counter(site.kind for site in sites) == {"linear": 48, "norm": 25, "block": 12, "attention": 12, "conv": 1}
    outside = [site.name for site in sites if site.block is None]
    assert outside == ["patch_embed.proj", "norm"]
    qkv = next(site for site in sites if site.name == "blocks.3.attn.qkv")
    assert (qkv.block, qkv.stage, qkv.dim, qkv.prefix_tokens, qkv.layout) == (3, 0, 576, 1, "NLC")
    assert qkv.rows == {"q": slice(0, 192), "k": slice(192, 384), "v": slice(384, 576)}


@pytest.mark.slow
def test_a_downsampling_belongs_to_the_block_after_it() -> None:
    sites = {site.name: site for site in load("swin_tiny_patch4_window7_224", "none", 64).sites()}
    merging = sites["layers.1.downsample.reduction"]
    assert (merging.block, merging.stage, merging.dim) == (2, 1, 192)
    assert sites["layers.1.blocks.0"].block == 2
