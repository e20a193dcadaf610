"""Choose the device and its precision."""

from __future__ import annotations

import torch

from visionadapt.errors import UsageError
from visionadapt.system.process import keep_freed_memory


def choose_device(wanted: str) -> torch.device:
    """Return the requested device, or raise UsageError if there is none; `auto` prefers cuda, then mps, then cpu.

    On a CPU, freed memory is kept for reuse.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    try:
        device = torch.device(next(name for name, found in there.items() if found) if wanted == "auto" else wanted)
    except RuntimeError as error:
        raise UsageError(f"--device {wanted!r} is unknown; give auto, cpu, cuda, cuda:N or mps") from error
    beyond = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if beyond or not there.get(device.type, False):
        raise UsageError(f"--device {wanted}: this machine has none that torch can use; use --device auto")
    if device.type == "cpu":
        keep_freed_memory()
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the requested precision, or raise UsageError; `auto` is bfloat16 if the hardware supports it natively."""
    if wanted != "auto":
        if wanted == "float16" and device.type == "cpu":
            raise UsageError("--precision float16 needs a GPU; on a CPU give bfloat16, float32 or auto")
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" and _cpu_multiplies_bfloat16() else "float32"


def choose_prefix_precision(wanted: str, device: torch.device) -> str:
    """Return the precision of the frozen part: `auto` chooses float32 on a CPU.

    The frozen part runs once per image, so exactness is cheap, and training cannot compensate for its errors. With
    lite0's features in bfloat16, 2 of 100 labels changed.
    """
    return "float32" if wanted == "auto" and device.type == "cpu" else choose_precision(wanted, device)


def _cpu_multiplies_bfloat16() -> bool:
    """Return whether the CPU has bfloat16 instructions; torch has only private queries, which vary between releases."""
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question)() for question in questions if hasattr(torch.cpu, question))
