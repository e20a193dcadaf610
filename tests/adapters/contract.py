"""What every method guarantees on every family, as one function, called by the test and by the table in the docs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.adapters.families import FAMILIES, Subject, run, subject
from visionadapt import adapters
from visionadapt.errors import AdapterError

METHODS: dict[str, Any] = {
    "Bottleneck (post)": adapters.Bottleneck(rank=2),
    "Bottleneck (Pfeiffer)": adapters.Bottleneck(rank=2, placement="pfeiffer"),
    "Bottleneck (Houlsby)": adapters.Bottleneck(rank=2, placement="houlsby"),
    "AdaptFormer": adapters.AdaptFormer(rank=2),
    "Convpass": adapters.Convpass(rank=2),
    "Conv-Adapter": adapters.ConvAdapter(),
    "LoRA": adapters.LoRA(rank=2),
    "DoRA": adapters.DoRA(rank=2),
    "SSF": adapters.SSF(),
    "RepAdapter": adapters.RepAdapter(rank=2),
    "(IA)³": adapters.IA3(),
    "VPT (shallow)": adapters.VPT(tokens=2, deep=False),
    "VPT (deep)": adapters.VPT(tokens=2),
    "BitFit": adapters.BitFit(),
    "Norm tuning": adapters.NormTuning(),
    "Side network": adapters.SideNetwork(),
    "Partial fine-tuning": adapters.PartialFineTuning(blocks="last:1"),
    "Full fine-tuning": adapters.FullFineTuning(),
    "Probe, then fine-tuning": adapters.LinearProbeFineTuning(),
}
MERGEABLE = ("LoRA", "DoRA", "SSF", "RepAdapter", "(IA)³", "BitFit", "Norm tuning")
NOT_AT_STEP_0 = ("VPT (shallow)", "VPT (deep)")
"""Prompts take part in attention at once."""

OTHER_KERNEL = ("TransformerEncoder", "MultiheadAttention")
"""torch computes these by another kernel once anything is attached; the weights are the same."""

OTHER_KERNEL_IF_BIAS_TRAINS = ("BEiT", "MaxViT", "Swin", "Swin v2")
"""torch computes attention by another kernel once its position bias wants a gradient; the weights are the same."""

WHERE = {("BitFit", "BERT"): "!*.key"}
"""A bias that all keys share cancels in the softmax, so a separate key projection has no bias to train."""


@dataclass(frozen=True)
class Cell:
    """The result of one method on one family: the reason of the refusal, or the adapter's numbers."""

    refusal: str = ""
    sites: int = 0
    parameters: int = 0
    merged_error: float | None = None


def check(method: str, family: str) -> Cell:
    """Check the complete contract; return a refusal, raise AssertionError where a promise is broken."""
    settings, made = METHODS[method], subject(family)
    before, plain = _bits(made.model), made.output()
    try:
        done = adapters.attach(made.model, settings, sites=made.sites, where=WHERE.get((method, family)))
    except AdapterError as error:
        assert _same(before, _bits(made.model)), "a refusal changed the model"
        return Cell(refusal=str(error))
    if method not in NOT_AT_STEP_0:
        _check_step_0(made, plain, exact=_same_kernel(method, family))
    adapters.probe(made.model, made.inputs)
    _train(made)
    trained = made.output().detach()
    assert not torch.allclose(trained, plain), "three steps changed nothing"
    _check_state(made, method, family, trained)
    error = (
        _check_merged(made, trained, is_exported(method, family)) if method in MERGEABLE else _check_not_mergeable(made)
    )
    adapters.detach(made.model)
    assert _same(before, _bits(made.model)), "detaching did not restore the bits"
    assert torch.equal(made.output(), plain)
    return Cell(sites=len(done.sites), parameters=done.trainable, merged_error=error)


def _same_kernel(method: str, family: str) -> bool:
    return family not in OTHER_KERNEL and not ("fine-tuning" in method and family in OTHER_KERNEL_IF_BIAS_TRAINS)


def _check_step_0(made: Subject, plain: Tensor, exact: bool) -> None:
    if exact:
        assert torch.equal(made.output(), plain), "step 0 differs from the pretrained model"
    else:
        torch.testing.assert_close(made.output(), plain)


def _train(made: Subject) -> None:
    """Train three steps, call `train()` in each, and check that frozen tensors do not change."""
    parameters = [parameter for parameter in made.model.parameters() if parameter.requires_grad]
    frozen = _frozen(made.model)
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        made.model.train()
        optimiser.zero_grad()
        output = made.output()
        (output - output.detach().flip(0).roll(1, -1)).square().mean().backward()
        assert all(parameter.grad is not None for parameter in parameters), "a parameter got no gradient"
        optimiser.step()
    made.model.eval()
    assert _same(frozen, _frozen(made.model)), "a frozen tensor changed"


def _frozen(model: nn.Module) -> dict[str, Tensor]:
    named = [*((key, p) for key, p in model.named_parameters() if not p.requires_grad), *model.named_buffers()]
    return {key: tensor.detach().clone() for key, tensor in named}


def _check_state(made: Subject, method: str, family: str, trained: Tensor) -> None:
    other = subject(family)
    adapters.attach(other.model, METHODS[method], sites=other.sites, where=WHERE.get((method, family)), seed=1)
    adapters.load_state(other.model, {key: value.clone() for key, value in adapters.state(made.model).items()})
    assert torch.equal(other.output(), trained), "the state is incomplete"
    twin = copy.deepcopy(made.model)
    adapters.detach(twin)
    assert torch.equal(made.output(), trained), "a copy is not independent"


def is_exported(method: str, family: str) -> bool:
    """Whether the merged model is exported as well: for each method with a third of the families, and the reverse.

    It takes a second, and a merged model is made of the model's own modules, whichever method was merged.
    """
    return (MERGEABLE.index(method) + FAMILIES.index(family)) % 3 == 0


def _check_merged(made: Subject, trained: Tensor, exported: bool) -> float:
    merged = adapters.merge(made.model)
    assert not any("visionadapt.adapters" in type(module).__module__ for module in merged.modules())
    assert not any("visionadapt_adapters" in key for key in merged.state_dict())
    with torch.no_grad():
        output = run(merged, made.inputs)
    error = float((output - trained).abs().max() / trained.abs().max())
    assert error <= 1e-5, f"merged differs by {error:.1e}"
    if exported:
        _check_export(merged, made.inputs, output)
    return error


def _check_export(merged: nn.Module, inputs: Any, expected: Tensor) -> None:
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
    exported = torch.export.export(merged, args, kwargs, strict=False).module()
    torch.testing.assert_close(run(exported, inputs), expected)


def _check_not_mergeable(made: Subject) -> None:
    if any("TunedLayer" in type(module).__name__ for module in made.model.modules()):
        return
    try:
        adapters.merge(made.model)
    except AdapterError as error:
        assert "'default' at " in str(error)
    else:
        raise AssertionError("merging did not refuse")


def _bits(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
