"""Heat maps: which regions of an image support a class, from the gradients of a trained classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from visionadapt.backbones import Backbone
from visionadapt.backbones.anatomy import in_eval_mode
from visionadapt.backbones.feature_sets import MOMENTS
from visionadapt.errors import BackboneError
from visionadapt.model.classifier import Classifier


def heat_maps(model: Classifier, pixels: Tensor, classes: Sequence[int]) -> Tensor:
    """Return a map per image of the regions that support the requested class.

    The maps explain the class's logit minus the mean of all logits: adding a constant to every logit does not change
    the softmax, and should not change an explanation either.

    For a CNN this is Grad-CAM on the last block's output: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2:
    ReLU(Σ_k α_k A_k), where α_k is the mean over all positions of the gradient of channel k. Where later attention
    mixes positions, an earlier tensor is explained: the input of a Swin's last stage, or the patch tokens at the input
    of a ViT's last block. Each token has its own gradient (Draelos and Carin, "HiResCAM", 2020) and enters as its
    difference from the image's mean token: ReLU(Σ_k g_k (A_k − Ā_k)). What all tokens share carries no position.

    Args:
        model: the classifier with its adapter layers; it does not change.
        pixels: normalised floats [B, 3, S, S] on the model's device.
        classes: one class index per image.

    Returns:
        float32 [B, h, w] on the CPU, in [0, 1], with a maximum of 1 per image. A map of zeros means that no region
        supports the class.

    Raises:
        BackboneError: the backbone cannot be divided into blocks, so that its positions are unknown.
    """
    backbone = model.backbone
    if not backbone.anatomy.known:
        reason = f"which is one block ({backbone.anatomy.undivided})"
        raise BackboneError(f"there are no heat maps of {backbone.name}, {reason}")
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with in_eval_mode(model):
        state, cut, patches = _before_the_end(model, pixels)
        logits = model.logits(state, cut)
        chosen = logits.gather(1, torch.tensor(classes, device=logits.device)[:, None])
        explained = [state[name] for name in _explained(state)]
        gradients = torch.autograd.grad((chosen - logits.mean(1, keepdim=True)).sum(), explained)
    weighed = [
        _weighed(tensor.detach(), gradient, backbone.anatomy.layout, patches)
        for tensor, gradient in zip(explained, gradients, strict=True)
    ]
    maps = torch.stack(weighed).sum(0).relu()
    strongest = maps.amax((1, 2), keepdim=True)
    return (maps / torch.where(strongest > 0, strongest, 1)).cpu()


def _before_the_end(model: Classifier, pixels: Tensor) -> tuple[dict[str, Tensor], int, int]:
    """Return the tensors to explain, as leaves of the graph; their cut; and the number of patches from the stem."""
    backbone = model.backbone
    cut = _cut(backbone)
    with torch.no_grad():
        state = model.prefix(pixels, 1)
        patches = state["x"].shape[1] - backbone.anatomy.prefix_tokens  # before the blocks, which may add prompts
        on_tokens = state["x"].ndim == 3
        before = backbone.run(state, 1, cut - 1) if cut > 1 else {}
        state = backbone.run(before or state, max(cut - 1, 1), cut)
    if backbone.anatomy.layout == "NLC" and (not on_tokens or patches > state["x"].shape[1]):
        patches = state["x"].shape[1] - backbone.anatomy.prefix_tokens
    if backbone.anatomy.layout == "NLC" and (round(patches**0.5) ** 2 != patches or hasattr(backbone.model, "unroll")):
        raise BackboneError(
            f"there are no heat maps of {backbone.name}, whose tokens are not in the order of its patches"
        )
    leaves = {**before, **{name: state[name].detach().requires_grad_() for name in _explained(state)}}
    backbone.add_moments(leaves, backbone.segments[cut - 1])
    return leaves, cut, patches


def _explained(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors with positions: one, or of an ensemble one per member."""
    return [name for name in state if not name.startswith(MOMENTS)]


def _cut(backbone: Backbone) -> int:
    """Return the cut to explain: after the last block, or before the attention that mixes its positions."""
    last = len(backbone.segments) - 1
    if backbone.anatomy.layout == "NLC":
        return last - 1
    if backbone.anatomy.layout == "NHWC":
        stage = backbone.segments[last - 1].stage
        return next(cut for cut, segment in enumerate(backbone.segments) if segment.stage == stage)
    return last


def _weighed(activation: Tensor, gradient: Tensor, layout: str, patches: int) -> Tensor:
    """Return activations times their gradients, summed over the channels: float32 [B, h, w]."""
    activation, gradient = activation.float(), gradient.float()
    if layout == "NLC":
        activation, gradient = activation[:, -patches:], gradient[:, -patches:]
        places = ((activation - activation.mean(1, keepdim=True)) * gradient).sum(2)
        side = round(patches**0.5)
        return places.reshape(len(places), side, -1)
    if layout == "NHWC":
        activation, gradient = activation.movedim(-1, 1), gradient.movedim(-1, 1)
    return (activation * gradient.mean((2, 3), keepdim=True)).sum(1)
