"""Write docs/adapter-layers.md: what every method does on every family, and what it costs.

    python -m benchmarks.adapter_layers

runs the contract of tests/adapters on every cell (about a minute), and one forward of a ViT-S/16 for each method.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from tests.adapters.contract import METHODS, Cell, check
from tests.adapters.families import FAMILIES
from tests.adapters.memory import saved_bytes
from visionadapt import adapters, backbones

_FILE = Path(__file__).parents[1] / "docs" / "adapter-layers.md"
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
}
_INTRODUCTION = """# Adapter layers

This file is written by `python -m benchmarks.adapter_layers`; do not edit it.

Settings say what is attached and where; `attach` makes the weights, freezes everything else, and keeps it in eval
whatever calls `train()`. Nothing is wrapped: classes, attributes and state-dict keys of the model stay as they are.

```python
import torch
from torch import nn

from visionadapt import adapters

net = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 4).eval()
words = torch.randn(2, 7, 32)

done = adapters.attach(net, adapters.LoRA(rank=4, blocks="last:2"), where="layers.*.linear1", name="news")
print(done.sites, done.trainable)                         # ('layers.2.linear1', 'layers.3.linear1') 768
adapters.probe(net, words)                                # every layer has a gradient and an effect, in every mode

optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-3)
net.train()(words).square().mean().backward()
optimiser.step()
weights = adapters.state(net, "news")                     # {"news/layers.2.linear1/down.all": …}

adapters.attach(net, adapters.Bottleneck(rank=4), name="mail")   # acts behind `news`; both are trained
adapters.switch(net, "mail")                              # now `mail` alone
with adapters.mixed(net.eval(), ["news", "mail"]):        # or each sample of a batch through its own
    net(words)

adapters.detach(net, "mail")
adapters.switch(net, "news")
plain = adapters.merge(net)                               # a copy with folded weights, without any adapter
adapters.detach(net)                                      # the original bits
```

A method of one's own is a frozen dataclass that inherits `Placement` and has `refuse(site)`, `own_places(sites)` and
`build(site)`; what it builds is an `nn.Module` called as `layer(x, y, host)` with the host's input and output. A layer
with `points = ("input",)` offers `change_input(x, host)`, one with `("weight",)` `change_weight(weight)`; a layer with
`merge(weight, bias)` can be merged.
"""
_CONTRACT = """## Every method on every family

Small models with random weights. ✓: it attaches, starts as the pretrained model (VPT excepted), every layer gets a
gradient and changes the output in train, eval and inference mode, nothing else moves in three steps, the state goes
round, and detaching brings the bits back. ⊕: it also merges exactly (≤ 1e-5 relative in float32) into a model that
`torch.export` takes. A number refers to the reason for a refusal below.
"""
_COSTS = f"""## What each costs

ViT-S/16, 224 px, the methods' defaults: trainable parameters, and what the forward of a batch of {_BATCH} keeps for the
backward pass (`torch.autograd.graph.saved_tensors_hooks`, parameters not counted, float32).
"""


def main() -> None:
    """Run every cell and every measurement, then write the file."""
    warnings.simplefilter("ignore")
    cells = {(method, family): check(method, family) for method in METHODS for family in FAMILIES}
    parts = [_INTRODUCTION, _CONTRACT, contract_table(cells), _COSTS, costs_table()]
    _FILE.write_text("\n".join(parts), encoding="utf-8")
    print(f"{sum(not cell.refusal for cell in cells.values())} cells attach; written to {_FILE}")


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


def costs_table() -> str:
    """Trainable parameters and saved activations of every method on a ViT-S/16."""
    model = backbones.load("vit_small_patch16_224", weights="none")
    pixels = torch.zeros(_BATCH, 3, 224, 224)
    rows, full = [], 0
    for method, settings in reversed(_COSTED.items()):
        trainable, kept = _cost(model, settings, pixels)
        full = full or kept
        rows.append(f"| {method} | {trainable:,} | {kept / 2**20:.0f} | {kept / full:.0%} |")
    head = "| Method | Trainable parameters | Kept, MiB | Share of full fine-tuning |\n|---|--:|--:|--:|"
    return "\n".join([head, *rows[::-1], ""])


def _cost(
    model: backbones.Backbone, settings: adapters.AdapterSettings | None, pixels: torch.Tensor
) -> tuple[int, int]:
    if settings is None:
        return 0, 4 * _BATCH * model.num_features
    done = adapters.attach(model, settings, sites=model.sites())
    kept = saved_bytes(model.train(), pixels)
    adapters.detach(model)
    return done.trainable, kept


if __name__ == "__main__":
    main()
