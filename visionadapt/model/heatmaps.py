"""Heat maps: which places of a picture speak for a class, from the gradients of a trained classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionadapt.backbones import Backbone
from visionadapt.backbones.anatomy import in_eval_mode
from visionadapt.errors import BackboneError
from visionadapt.model.classifier import Classifier


def heat_maps(model: Classifier, pixels: Tensor, classes: Sequence[int]) -> Tensor:
    """Where each picture speaks for the class asked for.

    What is explained is the class's logit above the mean of all logits: the softmax does not change where the same
    is added to every logit, and neither should an explanation.

    On the maps of a CNN it is Grad-CAM on what the last block gives: Selvaraju et al., "Grad-CAM", ICCV 2017, equations
    1 and 2: ReLU(Σ_k α_k A_k), where α_k is the mean over all places of the gradient by channel k. Where attention
    mixes the places behind it, what is explained lies before that: of a Swin, what the last stage takes in; of a ViT,
    the patch tokens that the last block takes in. Tokens each have their own gradient (Draelos and Carin, "HiResCAM",
    2020), and count by their difference from the mean of the picture's: ReLU(Σ_k g_k (A_k − Ā_k)). What all tokens
    have in common says nothing of places.

    Args:
        model: the classifier, its adapter layers included; nothing of it changes.
        pixels: normalised floats [B, 3, S, S] on the model's device.
        classes: a class index each.

    Returns:
        float32 [B, h, w] on the CPU, in [0, 1]; the strongest place of each picture is 1. A map of zeros means that no
        place speaks for the class.

    Raises:
        BackboneError: the backbone's family is unknown, so that it has no places.
    """
    backbone = model.backbone
    if not backbone.anatomy.known:
        raise BackboneError(f"there are no heat maps of {backbone.name}: its family could not be taken apart")
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with in_eval_mode(model):
        state, cut, patches = _before_the_end(model, pixels)
        logits = model.logits(state, cut)
        chosen = logits.gather(1, torch.tensor(classes, device=logits.device)[:, None])
        (gradient,) = torch.autograd.grad((chosen - logits.mean(1, keepdim=True)).sum(), state["x"])
    return _normalised(_weighed(state["x"].detach(), gradient, backbone.anatomy.layout, patches))


def _before_the_end(model: Classifier, pixels: Tensor) -> tuple[dict[str, Tensor], int, int]:
    """What is explained, as the start of a graph; the cut where it lies; and how many patches the stem makes."""
    backbone = model.backbone
    cut = _cut(backbone)
    with torch.no_grad():
        state = model.prefix(pixels, 1)
        patches = state["x"].shape[1] - backbone.anatomy.prefix_tokens
        state = backbone.run(state, 1, cut)
    return {name: tensor.detach().requires_grad_() for name, tensor in state.items()}, cut, patches


def _cut(backbone: Backbone) -> int:
    """Where what is explained lies: behind the last block, or before the attention that mixes its places."""
    last = len(backbone.segments) - 1
    if backbone.anatomy.layout == "NLC":
        return last - 1
    if backbone.anatomy.layout == "NHWC":
        stage = backbone.segments[last - 1].stage
        return next(cut for cut, segment in enumerate(backbone.segments) if segment.stage == stage)
    return last


def _weighed(activation: Tensor, gradient: Tensor, layout: str, patches: int) -> Tensor:
    """Activations times their gradients, summed over the channels: float32 [B, h, w]."""
    activation, gradient = activation.float(), gradient.float()
    if layout == "NLC":
        activation, gradient = activation[:, -patches:], gradient[:, -patches:]
        places = ((activation - activation.mean(1, keepdim=True)) * gradient).sum(2)
        side = round(patches**0.5)
        return places.reshape(len(places), side, -1)
    if layout == "NHWC":
        activation, gradient = activation.movedim(-1, 1), gradient.movedim(-1, 1)
    return (activation * gradient.mean((2, 3), keepdim=True)).sum(1)


def _normalised(places: Tensor) -> Tensor:
    positive = places.relu()
    strongest = positive.amax((1, 2), keepdim=True)
    return (positive / torch.where(strongest > 0, strongest, 1)).cpu()
