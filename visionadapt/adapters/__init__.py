"""Adapter layers: small trainable parts that adapt a frozen model to a new task, on any `nn.Module`.

Belongs here: where layers can be attached, and attaching, switching, merging and saving them. The methods themselves
(LoRA, bottlenecks, …) are in `methods/`. Not here: timm's families (`backbones/`), and training (`training/`).
"""

from __future__ import annotations

from visionadapt.adapters.attach import AdapterSettings, Attached, attach, choose, detach, names, switch, trainable
from visionadapt.adapters.freeze import hold, release
from visionadapt.adapters.merging import merge
from visionadapt.adapters.methods.adaptformer import AdaptFormer
from visionadapt.adapters.methods.bitfit import BitFit
from visionadapt.adapters.methods.bottleneck import Bottleneck
from visionadapt.adapters.methods.convadapter import ConvAdapter
from visionadapt.adapters.methods.convpass import Convpass
from visionadapt.adapters.methods.dora import DoRA
from visionadapt.adapters.methods.fine_tuning import (
    FullFineTuning,
    LinearProbeFineTuning,
    PartialFineTuning,
    frozen_in,
)
from visionadapt.adapters.methods.ia3 import IA3
from visionadapt.adapters.methods.lora import LoRA
from visionadapt.adapters.methods.norm_tuning import NormTuning
from visionadapt.adapters.methods.repadapter import RepAdapter
from visionadapt.adapters.methods.side_network import SideNetwork
from visionadapt.adapters.methods.ssf import SSF
from visionadapt.adapters.methods.vpt import VPT
from visionadapt.adapters.optimizer_groups import ParameterGroup, parameter_groups
from visionadapt.adapters.per_sample import mixed
from visionadapt.adapters.placement import Placement, select
from visionadapt.adapters.reach import probe
from visionadapt.adapters.sites import find_sites
from visionadapt.adapters.state import load_state, state

__all__ = [
    "IA3",
    "SSF",
    "VPT",
    "AdaptFormer",
    "AdapterSettings",
    "Attached",
    "BitFit",
    "Bottleneck",
    "ConvAdapter",
    "Convpass",
    "DoRA",
    "FullFineTuning",
    "LinearProbeFineTuning",
    "LoRA",
    "NormTuning",
    "ParameterGroup",
    "PartialFineTuning",
    "Placement",
    "RepAdapter",
    "SideNetwork",
    "attach",
    "choose",
    "detach",
    "find_sites",
    "frozen_in",
    "hold",
    "load_state",
    "merge",
    "mixed",
    "names",
    "parameter_groups",
    "probe",
    "release",
    "select",
    "state",
    "switch",
    "trainable",
]


def __dir__() -> list[str]:
    return sorted(__all__)
