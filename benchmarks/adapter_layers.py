"""Write docs/reference/adapter-layers.md: what every method does on every family, and what it costs.

    python -m benchmarks.adapter_layers

runs the contract of tests/adapters on every cell, `mixed` on each, and one forward of a ViT-S/16 for each method.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from tests.adapters.contract import METHODS, OTHER_KERNEL, OTHER_KERNEL_IF_BIAS_TRAINS, WHERE, Cell, check
from tests.adapters.families import FAMILIES, subject
from tests.adapters.memory import saved_bytes
from visionadapt import adapters, backbones
from visionadapt.core import spec
from visionadapt.errors import AdapterError

_FILE = Path(__file__).parents[1] / "docs" / "reference" / "adapter-layers.md"
_BATCH = 8
_COSTED = {
    "Linear probe": None,
    "Bottleneck (post)": adapters.Bottleneck(),
    "Bottleneck (post), last 4 blocks": adapters.Bottleneck(blocks="last:4"),
    "Bottleneck (Pfeiffer)": adapters.Bottleneck(placement="pfeiffer"),
    "Bottleneck (Houlsby)": adapters.Bottleneck(placement="houlsby"),
    "AdaptFormer": adapters.AdaptFormer(),
    "Convpass": adapters.Convpass(),
    "LoRA": adapters.LoRA(),
    "LoRA, last 4 blocks": adapters.LoRA(blocks="last:4"),
    "DoRA": adapters.DoRA(),
    "SSF": adapters.SSF(),
    "RepAdapter": adapters.RepAdapter(),
    "(IA)³": adapters.IA3(),
    "VPT (shallow)": adapters.VPT(deep=False),
    "VPT (deep)": adapters.VPT(),
    "BitFit": adapters.BitFit(),
    "Norm tuning": adapters.NormTuning(),
    "Side network": adapters.SideNetwork(),
    "Partial fine-tuning": adapters.PartialFineTuning(),
    "Full fine-tuning": adapters.FullFineTuning(),
    "Probe, then fine-tuning": adapters.LinearProbeFineTuning(),
}
_INTRODUCTION = """# Adapter layers

This file is written by `python -m benchmarks.adapter_layers`; do not edit it.

Settings say what is attached and where; `attach` makes the weights, freezes everything else, and keeps it in eval
whatever calls `train()`. Nothing is wrapped: classes, attributes and state-dict keys of the model stay as they are.
Any `nn.Module` that holds linear layers, convolutions or norms can be the model. A new head is not part of it: train
one next to it, such as `visionadapt.tasks.ClassificationHead`. [A notebook](../../notebooks/03_reuse_adapters.ipynb)
goes through all of this on scanned digits and on sentences.

```python
import torch
from torch import nn

from visionadapt import adapters

net = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 4).eval()
words = torch.randn(2, 7, 32)

done = adapters.attach(net, adapters.LoRA(rank=4, blocks="last:2"), where="layers.*.linear1", name="news")
print(done.sites, done.trainable)  # ('layers.2.linear1', 'layers.3.linear1') 768
adapters.probe(net, words)  # every layer has a gradient and an effect, in every mode

optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-3)
net.train()(words).square().mean().backward()
optimiser.step()
weights = adapters.state(net, "news")  # {"news/layers.2.linear1/down.all": …}

adapters.attach(net, adapters.Bottleneck(rank=4), name="mail")  # acts behind `news`; both are trained
adapters.switch(net, "mail")  # now `mail` alone
with adapters.mixed(net.eval(), ["news", "mail"]):  # or each sample of a batch through its own
    net(words)

adapters.detach(net, "mail")
adapters.switch(net, "news")
plain = adapters.merge(net)  # a copy with folded weights, without any adapter
adapters.detach(net)  # the original bits
```

## Where it goes

By default, each method attaches to its standard modules in every block: a bottleneck behind the block, say, a LoRA on
the queries and values where the model tells them apart, else on projections of all channels. Its docstring tells
which, with the paper, the equation and a formula of its trainable parameters. Four fields that all methods have choose
otherwise:

- `blocks`: `all`, `first:3`, `last:6`, `last:66%`, or indices such as `0,3,5`; `stages` in the same words.
- `where`, a field and an argument of `attach`: patterns on module names, such as `*.attn.qkv` or `*.query,*.value`;
  `!*.key` takes out.
- `types`: names of module classes, such as `Linear` or `Linear,Conv2d`; their subclasses count too.

What patterns or types name must fit the method, or `attach` refuses it with the reason. All four restrict together.

`adapters.find_sites(model)` lists what there is to choose from; the sites of a `visionadapt.backbones` backbone, which
know more (q, k and v in a fused `qkv`, class tokens, stages), are given with `sites=backbone.sites()`.
"""
_ADVICE = """## Which method, when

Only a validation split shows how accurate a method is on your images;
[one comparison](../measurements/adapter-methods.md) is on photographs with a convolutional backbone. The costs on a
ViT-S/16 with each method's defaults, measured below, narrow the choice:
"""
_CHOICES = """
**The model is to be served or exported as a plain module**: {merging} fold into the weights. Of these, {everywhere}
attach to every family of the table. SSF and RepAdapter add biases where the model has none, so that the merged state
dict no longer loads into a fresh model of the original class; that of LoRA does.

**Memory is short**: place the layers late, or take the side network. Freezing alone saves little, since the backward
pass still runs through everything behind the first layer: LoRA in all blocks keeps {lora} of what full fine-tuning
keeps, in the last four {lora_last}; a bottleneck {bottleneck}, or {bottleneck_last}; partial fine-tuning of the last
two blocks {partial}; the side network, in all blocks, {side}. Few parameters are not little memory: SSF keeps {ssf},
(IA)³ {ia3}, DoRA {dora}.

**The file is to be small**: {smallest} have the fewest parameters here, the head not counted.

**Several tasks are to share one batch** (`adapters.mixed`): {mixing} can, on every family that takes them.
{mixing_partly} can where their hosts are called; where weights are read instead ({mixing_not}), choose other places
with `where`. The rest change what all samples of a batch share.

**The model is a convolutional one**: Conv-Adapter is made for its convolutions; VPT needs tokens.
"""
_CONTRACT = """## Every method on every family

Small models with random weights. ✓: it attaches, starts as the pretrained model, every layer gets a gradient and
changes the output in train, eval and inference mode, nothing else moves in three steps, saving and loading round-trips,
and detaching restores the original weights exactly. ⊕: it also merges exactly (≤ 1e-5 relative in float32) into a model
that `torch.export` takes. A number refers to the reason for a refusal below.
"""
_EXCEPTIONS = """
Starting as the pretrained model means bit for bit, with two exceptions. VPT's prompts take part in attention at once.
And it means up to rounding where torch takes another kernel as soon as something is attached ({always}), or as soon as
the position bias wants a gradient ({if_bias_trains}, in fine-tuning). On BERT, BitFit leaves out the biases of the
keys, which cancel in the softmax and so have nothing to learn.
"""
_COSTS = f"""## What each costs

ViT-S/16, 224 px, the methods' defaults: trainable parameters without a head, and what the forward of a batch of
{_BATCH} keeps for the backward pass (`torch.autograd.graph.saved_tensors_hooks`, parameters not counted, float32), in
MiB and as a share of what full fine-tuning keeps. The settings are written as on
the command line: `--adapter 'bottleneck(placement=houlsby)'` is `adapters.Bottleneck(placement="houlsby")` in Python.
Conv-Adapter is missing, since a ViT's blocks hold no convolution wider than one place.
"""
_OWN = """## A method of one's own

A method of one's own is a frozen dataclass that inherits `Placement` and has `refuse(site)`, `own_places(sites)` and
`build(site)`; what it builds is an `nn.Module` called as `layer(x, y, host)` with the host's input and output. A layer
with `points = ("input",)` offers `change_input(x, host)`, one with `("weight",)` `change_weight(weight)`; a layer with
`merge(weight, bias)` can be merged.
"""


class Cost(NamedTuple):
    """Trainable parameters, and bytes kept for the backward pass."""

    trainable: int
    kept: int


def main() -> None:
    """Run every cell and every measurement, then write the file."""
    warnings.simplefilter("ignore")
    cells = {(method, family): check(method, family) for method in METHODS for family in FAMILIES}
    costs = measure_costs()
    exceptions = _EXCEPTIONS.format(always=_listed(OTHER_KERNEL), if_bias_trains=_listed(OTHER_KERNEL_IF_BIAS_TRAINS))
    table = contract_table(cells)
    advised = advice(cells, costs)
    parts = [_INTRODUCTION, advised, _CONTRACT, _wrapped(exceptions), table, _COSTS, costs_table(costs), _OWN]
    _FILE.write_text("\n".join(parts), encoding="utf-8")
    print(f"{sum(not cell.refusal for cell in cells.values())} cells attach; written to {_FILE}")


def advice(cells: dict[tuple[str, str], Cell], costs: dict[str, Cost]) -> str:
    """Which method to take when, as far as the cells and the costs tell."""
    merging = [method for method in METHODS if any(cells[method, f].merged_error is not None for f in FAMILIES)]
    everywhere = [method for method in merging if not any(cells[method, family].refusal for family in FAMILIES)]
    smallest = sorted((method for method in METHODS if method in costs), key=lambda method: costs[method].trainable)[:3]
    mixes = {method: mixing_families(method) for method in METHODS}
    partly = [method for method in METHODS if len(set(mixes[method].values())) == 2]
    shares = {method: f"{cost.kept / costs['Full fine-tuning'].kept:.0%}" for method, cost in costs.items()}
    choices = _CHOICES.format(
        merging=_listed(merging),
        everywhere=_listed(everywhere),
        smallest=_listed([f"{method} ({costs[method].trainable:,})" for method in smallest]),
        mixing=_listed([method for method in METHODS if all(mixes[method].values())]),
        mixing_partly=_listed(partly),
        mixing_not=_listed([family for family in FAMILIES if any(not mixes[m].get(family, True) for m in partly)]),
        lora=shares["LoRA"],
        lora_last=shares["LoRA, last 4 blocks"],
        bottleneck=shares["Bottleneck (post)"],
        bottleneck_last=shares["Bottleneck (post), last 4 blocks"],
        partial=shares["Partial fine-tuning"],
        side=shares["Side network"],
        ssf=shares["SSF"],
        ia3=shares["(IA)³"],
        dora=shares["DoRA"],
    )
    return _ADVICE + "\n" + "".join(_wrapped(choice, "- ") for choice in choices.split("\n\n"))


def _wrapped(text: str, mark: str = "") -> str:
    """A paragraph or list item in lines of at most 120 characters."""
    indent = " " * len(mark)
    lines = textwrap.wrap(text.strip(), 120, initial_indent=mark, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join([*lines, ""])


def mixing_families(method: str) -> dict[str, bool]:
    """For each family that takes the method, whether one batch can mix it with the bare model there."""
    found = {}
    for family in FAMILIES:
        made = subject(family)
        try:
            adapters.attach(made.model, METHODS[method], sites=made.sites, where=WHERE.get((method, family)))
        except AdapterError:
            continue
        try:
            with torch.no_grad(), adapters.mixed(made.model, ["default", None]):
                made.output()
            found[family] = True
        except AdapterError:
            found[family] = False
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def contract_table(cells: dict[tuple[str, str], Cell]) -> str:
    """The table of families (rows) against methods (columns), and the reasons that its numbers mean."""
    reasons: dict[str, int] = {}
    rows = []
    for family in FAMILIES:
        marks = [_mark(cells[method, family], reasons) for method in METHODS]
        rows.append(f"| {family} | {' | '.join(marks)} |")
    head = f"| | {' | '.join(METHODS)} |\n|---|{':-:|' * len(METHODS)}"
    attached = sum(not cell.refusal for cell in cells.values())
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([head, *rows, "", f"{attached} of {len(cells)} cells attach.", "", *notes, ""])


def _mark(cell: Cell, reasons: dict[str, int]) -> str:
    if not cell.refusal:
        return "✓" if cell.merged_error is None else "⊕"
    _, colon, reason = cell.refusal.partition(": ")
    reason = reason if colon else cell.refusal.partition("; ")[0].partition(", and there")[0]
    return str(reasons.setdefault(reason, len(reasons) + 1))


def measure_costs() -> dict[str, Cost]:
    """What every method costs on a ViT-S/16."""
    model = backbones.load("vit_small_patch16_224", weights="none")
    pixels = torch.zeros(_BATCH, 3, 224, 224)
    return {method: _cost(model, settings, pixels) for method, settings in _COSTED.items()}


def costs_table(costs: dict[str, Cost]) -> str:
    """The costs as a table, with each method's settings as text."""
    full = costs["Full fine-tuning"].kept
    rows = []
    for method, (trainable, kept) in costs.items():
        text = spec.format(_COSTED[method], "adapter") if _COSTED[method] else "none"
        rows.append(f"| {method} | `{text}` | {trainable:,} | {kept / 2**20:.0f} | {kept / full:.0%} |")
    head = "| Method | Settings | Trainable parameters | Kept, MiB | Share |\n|---|---|--:|--:|--:|"
    return "\n".join([head, *rows, ""])


def _cost(model: backbones.Backbone, settings: adapters.AdapterSettings | None, pixels: torch.Tensor) -> Cost:
    if settings is None:
        return Cost(0, 4 * _BATCH * model.num_features)
    done = adapters.attach(model, settings, sites=model.sites())
    kept = saved_bytes(model.train(), pixels)
    adapters.detach(model)
    return Cost(done.trainable, kept)


if __name__ == "__main__":
    main()
