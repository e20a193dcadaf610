"""Adapter layers: small trainable parts that fit a frozen model to a new task. They know torch and `Site` alone."""

from __future__ import annotations

from visionadapt.adapters.attach import AdapterSettings, Attached, attach, choose, detach, names, switch, trainable
from visionadapt.adapters.bottleneck import Bottleneck
from visionadapt.adapters.discover import find_sites
from visionadapt.adapters.freeze import hold, release
from visionadapt.adapters.lora import LoRA
from visionadapt.adapters.placement import Placement, select
from visionadapt.adapters.probe import Reached, probe
from visionadapt.adapters.state import load_state, state

__all__ = [
    "AdapterSettings",
    "Attached",
    "Bottleneck",
    "LoRA",
    "Placement",
    "Reached",
    "attach",
    "choose",
    "detach",
    "find_sites",
    "hold",
    "load_state",
    "names",
    "probe",
    "release",
    "select",
    "state",
    "switch",
    "trainable",
]
