"""The structure of timm's families: one small function per family returns its `Anatomy`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


def anatomy_of(model: nn.Module) -> Anatomy:
    """Return the structure of a timm model; a model of any other class is one block.

    Only exact classes count: a subclass may compute something else.
    """
    family = _FAMILIES.get(type(model), _unknown)
    return family(model)


def _vision_transformer(model: Any) -> Anatomy:
    """ViT, DeiT, DINOv2, CLIP and SigLIP towers."""
    return _plain_transformer(model, _vision_transformer_stem)


def _vision_transformer_stem(model: Any, pixels: Tensor) -> Tensor:
    tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))
    return tokens


def _eva(model: Any) -> Anatomy:
    """EVA, EVA-02 and DINOv3: every block gets rotary position embeddings."""
    return _plain_transformer(model, _eva_stem, _eva_arguments)


def _eva_stem(model: Any, pixels: Tensor) -> Tensor:
    tokens, _ = model._pos_embed(model.patch_embed(pixels))
    normed: Tensor = model.norm_pre(tokens)
    return normed


def _eva_arguments(model: Any) -> Arguments:
    if model.rope is None:
        return [{"rope": None}] * len(model.blocks)
    cached = not model.dynamic_img_size and hasattr(model.rope, "feat_shape")
    rope = model.rope.get_embed() if cached else model.rope.get_embed(shape=model.patch_embed.grid_size)
    if getattr(model, "rope_mixed", False):
        return [{"rope": embedding} for embedding in rope]
    return [{"rope": rope}] * len(model.blocks)


def _beit(model: Any) -> Anatomy:
    """BEiT and BEiT v2: in some, all blocks share one relative position bias."""
    return _plain_transformer(model, _beit_stem, _beit_arguments)


def _beit_stem(model: Any, pixels: Tensor) -> Tensor:
    tokens = model.patch_embed(pixels)
    tokens = torch.cat((model.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
    if model.pos_embed is not None:
        tokens = tokens + model.pos_embed
    embedded: Tensor = model.pos_drop(tokens)
    return embedded


def _beit_arguments(model: Any) -> Arguments:
    bias = None if model.rel_pos_bias is None else model.rel_pos_bias()
    return [{"shared_rel_pos_bias": bias}] * len(model.blocks)


def _swin(model: Any) -> Anatomy:
    """Swin and Swin v2: patch merging starts a stage."""
    return Anatomy(
        stem=model.patch_embed,
        blocks=_stages((stage.blocks, stage.downsample) for stage in model.layers),
        finish=partial(_finish, model, ("norm",)),
        layout="NHWC",
    )


def _convnext(model: Any) -> Anatomy:
    """ConvNeXt v1 and v2: a norm and a strided convolution start a stage."""
    return Anatomy(
        stem=model.stem,
        blocks=_stages((stage.blocks, stage.downsample) for stage in model.stages),
        finish=partial(_finish, model, ("norm_pre",)),
        layout="NCHW",
    )


def _resnet(model: Any) -> Anatomy:
    """ResNet, ResNeXt, SE-ResNet and similar."""
    return Anatomy(
        stem=partial(_in_turn, model, ("conv1", "bn1", "act1", "maxpool")),
        blocks=_stages((layer, None) for layer in (model.layer1, model.layer2, model.layer3, model.layer4)),
        finish=partial(_finish, model, ()),
        layout="NCHW",
    )


def _efficientnet(model: Any) -> Anatomy:
    """EfficientNet v1, v2, Lite, EdgeTPU and MobileNet v1, v2."""
    return Anatomy(
        stem=partial(_in_turn, model, ("conv_stem", "bn1")),
        blocks=_stages((stage, None) for stage in model.blocks),
        finish=partial(_finish, model, ("conv_head", "bn2")),
        layout="NCHW",
    )


def _mobilenet(model: Any) -> Anatomy:
    """MobileNet v3 and v4: plain convolutions after the last residual unit belong to the finish."""
    stages = [list(stage) for stage in model.blocks]
    tail: list[nn.Module] = []
    while stages and isinstance(stages[-1][-1], ConvBnAct) and not stages[-1][-1].has_skip:
        tail.insert(0, stages[-1].pop())
        stages = [stage for stage in stages if stage]
    return Anatomy(
        stem=partial(_in_turn, model, ("conv_stem", "bn1")),
        blocks=_stages((stage, None) for stage in stages),
        finish=partial(_mobilenet_finish, model, tuple(tail)),
        layout="NCHW",
    )


def _mobilenet_finish(model: Any, tail: tuple[nn.Module, ...], x: Tensor) -> Tensor:
    for convolution in tail:
        x = convolution(x)
    return _finish(model, (), x)


def _regnet(model: Any) -> Anatomy:
    """RegNet X, Y, Z and V."""
    return Anatomy(
        stem=model.stem,
        blocks=_stages((stage.children(), None) for stage in (model.s1, model.s2, model.s3, model.s4)),
        finish=partial(_finish, model, ("final_conv",)),
        layout="NCHW",
    )


def _resnetv2(model: Any) -> Anatomy:
    """ResNet v2 and BiT."""
    return Anatomy(
        stem=model.stem,
        blocks=_stages((stage.blocks, None) for stage in model.stages),
        finish=partial(_finish, model, ("norm",)),
        layout="NCHW",
    )


def _nfnet(model: Any) -> Anatomy:
    """Normaliser-free networks (NFNet)."""
    return Anatomy(
        stem=model.stem,
        blocks=_stages((stage, None) for stage in model.stages),
        finish=partial(_finish, model, ("final_conv", "final_act")),
        layout="NCHW",
    )


def _maxxvit(model: Any) -> Anatomy:
    """MaxViT, MaxxViT and CoAtNet; a MaxViT block is a convolution and two attentions."""
    return Anatomy(
        stem=model.stem,
        blocks=_stages((stage.blocks, None) for stage in model.stages),
        finish=partial(_finish, model, ("norm",)),
        layout="NCHW",
    )


def _unknown(model: nn.Module) -> Anatomy:
    """Any other model: stem and finish do nothing and the whole model is the only block."""
    return Anatomy(stem=nn.Identity(), blocks=(Block(model, 0),), finish=nn.Identity(), layout="NLC", known=False)


_FAMILIES: Mapping[type[nn.Module], Callable[[Any], Anatomy]] = {
    Beit: _beit,
    ConvNeXt: _convnext,
    EfficientNet: _efficientnet,
    Eva: _eva,
    MaxxVit: _maxxvit,
    MobileNetV3: _mobilenet,
    NormFreeNet: _nfnet,
    RegNet: _regnet,
    ResNet: _resnet,
    ResNetV2: _resnetv2,
    SwinTransformer: _swin,
    SwinTransformerV2: _swin,
    VisionTransformer: _vision_transformer,
    VisionTransformerDistilled: _vision_transformer,
}


def _plain_transformer(
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


def _stages(stages: Iterable[tuple[Iterable[nn.Module], nn.Module | None]]) -> tuple[Block, ...]:
    """Number the units of all stages; the module that starts a stage runs before its first unit."""
    return tuple(block for index, (units, opening) in enumerate(stages) for block in _stage(index, units, opening))


def _stage(index: int, units: Iterable[nn.Module], opening: nn.Module | None = None) -> tuple[Block, ...]:
    before = () if opening is None or isinstance(opening, nn.Identity) else (opening,)
    return tuple(Block(unit, index, () if position else before) for position, unit in enumerate(units))


def _in_turn(model: Any, names: tuple[str, ...], x: Tensor) -> Tensor:
    for name in names:
        x = getattr(model, name)(x)
    return x


def _finish(model: Any, names: tuple[str, ...], x: Tensor) -> Tensor:
    """Run the named modules, then the model's own pooling: [B, D]."""
    features: Tensor = model.forward_head(_in_turn(model, names, x))
    return features
