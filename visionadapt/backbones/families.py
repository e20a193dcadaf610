"""The structure of timm's families: one small function for each of the common ones, a trace for all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.models._efficientnet_blocks import ConvBnAct
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.efficientnet import EfficientNet
from timm.models.eva import Eva
from timm.models.maxxvit import MaxxVit
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.nfnet import NormFreeNet
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from visionadapt.backbones.anatomy import Anatomy, Arguments, Block
from visionadapt.backbones.traced import traced_anatomy
from visionadapt.core.sites import Layout


def anatomy_of(model: nn.Module, image_size: int, channels: int = 3) -> Anatomy:
    """Return the structure of a timm model; of a family without a function of its own, by tracing it.

    Only exact classes count: a subclass may compute something else. A model that cannot be traced is one block.
    """
    family = _FAMILIES.get(type(model))
    if family is not None:
        return family(model)
    found = traced_anatomy(model, image_size, channels)
    return _undivided(model, found) if isinstance(found, str) else found


def _vision_transformer_stem(model: Any, pixels: Tensor) -> Tensor:
    tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))
    return tokens


def _eva_stem(model: Any, pixels: Tensor) -> Tensor:
    tokens, _ = model._pos_embed(model.patch_embed(pixels))
    normed: Tensor = model.norm_pre(tokens)
    return normed


def _eva_arguments(model: Any) -> Arguments:
    """Rotary position embeddings for every block."""
    if model.rope is None:
        return [{"rope": None}] * len(model.blocks)
    cached = not model.dynamic_img_size and hasattr(model.rope, "feat_shape")
    rope = model.rope.get_embed() if cached else model.rope.get_embed(shape=model.patch_embed.grid_size)
    if getattr(model, "rope_mixed", False):
        return [{"rope": embedding} for embedding in rope]
    return [{"rope": rope}] * len(model.blocks)


def _beit_stem(model: Any, pixels: Tensor) -> Tensor:
    tokens = model.patch_embed(pixels)
    tokens = torch.cat((model.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
    if model.pos_embed is not None:
        tokens = tokens + model.pos_embed
    embedded: Tensor = model.pos_drop(tokens)
    return embedded


def _beit_arguments(model: Any) -> Arguments:
    """In some models, all blocks share one relative position bias."""
    bias = None if model.rel_pos_bias is None else model.rel_pos_bias()
    return [{"shared_rel_pos_bias": bias}] * len(model.blocks)


def _swin(model: Any) -> Anatomy:
    """Swin and Swin v2: patch merging starts a stage."""
    stages = [(stage.blocks, stage.downsample) for stage in model.layers]
    return _staged(model, model.patch_embed, stages, ("norm",), "NHWC")


def _convnext(model: Any) -> Anatomy:
    """ConvNeXt v1 and v2: a norm and a strided convolution start a stage."""
    return _staged(model, model.stem, [(stage.blocks, stage.downsample) for stage in model.stages], ("norm_pre",))


def _resnet(model: Any) -> Anatomy:
    """ResNet, ResNeXt, SE-ResNet and similar."""
    stem = partial(_in_turn, model, ("conv1", "bn1", "act1", "maxpool"))
    return _staged(model, stem, [(layer, None) for layer in (model.layer1, model.layer2, model.layer3, model.layer4)])


def _efficientnet(model: Any) -> Anatomy:
    """EfficientNet v1, v2, Lite, EdgeTPU and MobileNet v1, v2."""
    stem = partial(_in_turn, model, ("conv_stem", "bn1"))
    return _staged(model, stem, [(stage, None) for stage in model.blocks], ("conv_head", "bn2"))


def _mobilenet(model: Any) -> Anatomy:
    """MobileNet v3 and v4: plain convolutions after the last residual unit belong to the finish."""
    stages = [list(stage) for stage in model.blocks]
    tail: list[str] = []
    while stages and isinstance(stages[-1][-1], ConvBnAct) and not stages[-1][-1].has_skip:
        stages[-1].pop()
        tail.insert(0, f"blocks.{len(stages) - 1}.{len(stages[-1])}")
        stages = [stage for stage in stages if stage]
    stem = partial(_in_turn, model, ("conv_stem", "bn1"))
    return _staged(model, stem, [(stage, None) for stage in stages], tail)


def _regnet(model: Any) -> Anatomy:
    """RegNet X, Y, Z and V."""
    stages = [(stage.children(), None) for stage in (model.s1, model.s2, model.s3, model.s4)]
    return _staged(model, model.stem, stages, ("final_conv",))


def _with_last_norm(model: Any) -> Anatomy:
    """ResNet v2 and BiT; MaxViT, MaxxViT and CoAtNet. A MaxViT block is a convolution and two attentions."""
    return _staged(model, model.stem, [(stage.blocks, None) for stage in model.stages], ("norm",))


def _nfnet(model: Any) -> Anatomy:
    """Normaliser-free networks (NFNet)."""
    return _staged(model, model.stem, [(stage, None) for stage in model.stages], ("final_conv", "final_act"))


def _undivided(model: nn.Module, reason: str) -> Anatomy:
    """Stem and finish do nothing, and the whole model is the only block."""
    return Anatomy(nn.Identity(), (Block(model, 0),), nn.Identity(), layout="NLC", undivided=reason)


def _tokens(
    model: Any, stem: Callable[[Any, Tensor], Tensor], arguments: Callable[[Any], Arguments] | None = None
) -> Anatomy:
    """One stage of blocks on tokens [B, L, C], then a norm."""
    return Anatomy(
        stem=partial(stem, model),
        blocks=_stage(0, model.blocks),
        finish=partial(_finish, model, ("norm",)),
        layout="NLC",
        prefix_tokens=model.num_prefix_tokens,
        block_arguments=None if arguments is None else partial(arguments, model),
    )


def _staged(
    model: Any,
    stem: Callable[[Tensor], Tensor],
    stages: Iterable[tuple[Iterable[nn.Module], nn.Module | None]],
    closing: Sequence[str] = (),
    layout: Layout = "NCHW",
) -> Anatomy:
    """Several stages on maps, each of its units and the module that runs before the first, then the `closing` ones."""
    blocks = [block for index, (units, opening) in enumerate(stages) for block in _stage(index, units, opening)]
    return Anatomy(stem=stem, blocks=tuple(blocks), finish=partial(_finish, model, tuple(closing)), layout=layout)


def _stage(index: int, units: Iterable[nn.Module], opening: nn.Module | None = None) -> tuple[Block, ...]:
    before = () if opening is None or isinstance(opening, nn.Identity) else (opening,)
    return tuple(Block(unit, index, () if position else before) for position, unit in enumerate(units))


def _in_turn(model: Any, names: tuple[str, ...], x: Tensor) -> Tensor:
    for name in names:
        x = model.get_submodule(name)(x)
    return x


def _finish(model: Any, names: tuple[str, ...], x: Tensor) -> Tensor:
    """Run the named modules, then the model's own pooling: [B, D]."""
    features: Tensor = model.forward_head(_in_turn(model, names, x))
    return features


_vision_transformer = partial(_tokens, stem=_vision_transformer_stem)
_FAMILIES: Mapping[type[nn.Module], Callable[[Any], Anatomy]] = {
    Beit: partial(_tokens, stem=_beit_stem, arguments=_beit_arguments),
    ConvNeXt: _convnext,
    EfficientNet: _efficientnet,
    Eva: partial(_tokens, stem=_eva_stem, arguments=_eva_arguments),
    MaxxVit: _with_last_norm,
    MobileNetV3: _mobilenet,
    NormFreeNet: _nfnet,
    RegNet: _regnet,
    ResNet: _resnet,
    ResNetV2: _with_last_norm,
    SwinTransformer: _swin,
    SwinTransformerV2: _swin,
    VisionTransformer: _vision_transformer,
    VisionTransformerDistilled: _vision_transformer,
}
"""Eva includes EVA-02 and DINOv3, Beit includes BEiT v2, VisionTransformer DeiT, DINOv2, CLIP's and SigLIP's towers."""
