"""Models with PEFT's adapters, to compare ours with; importing it takes most of a second, so only their tests do."""

from __future__ import annotations

from typing import Any

from torch import nn


def with_peft(model: nn.Module, config: str, **settings: Any) -> nn.Module:
    """Insert the layers of a configuration of PEFT, such as `LoraConfig`, in a model, and return it."""
    import peft

    injected: nn.Module = peft.inject_adapter_in_model(getattr(peft, config)(**settings), model)
    return injected
