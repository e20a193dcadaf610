"""A text classifier learns a new label: adapters in its body and a new head, with the same functions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from visionadapt.adapters import FullFineTuning, LoRA, attach, detach, state, trainable

from .families import subject

pytestmark = pytest.mark.slow


def test_a_new_label() -> None:
    made = subject("BERT")
    model = made.model
    torch.manual_seed(0)
    old_head = model.classifier
    attach(model, LoRA(rank=4, alpha=16), where="bert.encoder.*.query,bert.encoder.*.value", name="label")
    model.classifier = nn.Linear(16, 4)
    attach(model.classifier, FullFineTuning(), name="head")
    assert {name.split(".")[0] for name in trainable(model)} == {"bert", "classifier"}
    words = torch.randint(0, 50, (24, 7))
    labels = (words[:, :3].sum(1) % 4).long()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(150):
        model.train()
        optimiser.zero_grad()
        loss = F.cross_entropy(model(input_ids=words).logits, labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 1.0 < losses[0]
    assert all(key.startswith(("label/bert.", "head/")) for key in state(model))
    detach(model)
    model.classifier = old_head
    assert torch.equal(made.output(), subject("BERT").output())
