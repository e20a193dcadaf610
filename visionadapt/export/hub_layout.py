"""Write a classifier as a repository of the Hugging Face hub: timm's files, the run itself, and a model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from visionadapt.errors import RunError, VisionAdaptError
from visionadapt.export.export import weights_license
from visionadapt.export.hub_card import card
from visionadapt.images import Preprocessing
from visionadapt.model.timm_model import timm_model
from visionadapt.prediction.predictor import Predictor
from visionadapt.runs import saved
from visionadapt.runs.folder import check_replaceable
from visionadapt.runs.hub import FILES, FOLDER, FORMAT, MANIFEST, check_repository, local_run
from visionadapt.system.storage import file_sha256, replacing_folder, write_bytes, write_json, write_text
from visionadapt.version import __version__

_CROP_MODES = {"crop": "center", "squash": "squash", "letterbox": "border"}
_CONFIG = ("tag", "custom_load", "first_conv", "classifier", "pool_size", "fixed_input_size", "license")
"""What is kept of timm's own description of a model."""


def write_layout(
    run: str | Path, out: str | Path, repository: str, *, weights: str | Path | None = None, overwrite: bool = False
) -> str | None:
    """Write a folder as the hub and timm expect it.

    `model.safetensors` and `config.json` are timm's, where timm can hold the classifier, with the temperature in its
    head. `visionadapt/` holds the run without its images, paths and options; the backbone's weights are in it unless
    they are pretrained ones that a name finds. `visionadapt.json` names the files of the run with their SHA-256.

    Args:
        run: run folder, or `hf://ORG/NAME`.
        out: the folder to make.
        repository: `ORG/NAME`, which the model card names.
        weights: the backbone's weights, if they are elsewhere than in training.
        overwrite: whether to replace such a folder.

    Returns:
        Why timm cannot load the classifier; None where it can.

    Raises:
        UsageError: the name is none.
        RunError: the folder is there already, holds something else or cannot be made, or the run cannot be read.
    """
    check_repository(repository)
    run, out = local_run(run), Path(out)
    check_replaceable(out, overwrite, (out / MANIFEST).is_file(), "pushed classifier")
    predictor = dataclasses.replace(saved.load(run, "cpu", weights=weights), golden=())
    license_name = weights_license(predictor.classifier.backbone.name)
    with replacing_folder(out) as fresh:
        fresh.mkdir(exist_ok=True)
        _write_run(fresh / FOLDER, run, predictor)
        try:
            _write_timm(fresh, predictor, license_name)
            refused = None
        except VisionAdaptError as error:
            refused = " ".join(str(error).split())
        write_text(fresh / "README.md", card(run, predictor, repository, license_name, refused))
        paths = {name: fresh / FOLDER / name for name in FILES if (fresh / FOLDER / name).is_file()}
        files = {name: {"bytes": each.stat().st_size, "sha256": file_sha256(each)} for name, each in paths.items()}
        write_json(fresh / MANIFEST, {"format": FORMAT, "visionadapt": __version__, "files": files})
    return refused


def upload(folder: Path, repository: str, *, public: bool) -> str:
    """Upload a folder of `write_layout` to the hub, into a repository that is made if it is not there.

    Returns:
        The address of the commit.

    Raises:
        RunError: the hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi, constants

    try:
        api = HfApi(endpoint=constants.ENDPOINT, library_name="visionadapt", library_version=__version__)
        api.create_repo(repository, private=not public, exist_ok=True)
        message = "Push a classifier trained with visionadapt"
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)
    except Exception as error:  # whatever the hub's client raises
        reason = (str(error).splitlines() or [""])[0]
        raise RunError(
            f"{repository} cannot be pushed ({type(error).__name__}: {reason}); log in with `hf auth login`"
        ) from error


def _write_run(folder: Path, run: Path, predictor: Predictor) -> None:
    """Write the run without golden images, options and paths of this machine."""
    origin = saved.read_model(run)[1]["weights"]
    named = origin if origin in {"pretrained", "none"} else "none"
    saved.save(folder, predictor, weights=named)
    if origin != named:
        tensors = predictor.classifier.backbone.model.state_dict()
        write_bytes(folder / saved.BUNDLED, safetensors_bytes({name: each.cpu() for name, each in tensors.items()}))
    for path in folder.iterdir():
        if path.name not in FILES:
            path.unlink()


def _write_timm(out: Path, predictor: Predictor, license_name: str | None) -> None:
    """Write timm's `model.safetensors` and `config.json`; raise VisionAdaptError where timm cannot hold the model."""
    model, classifier = timm_model(predictor.classifier), predictor.classifier
    _divide_head(model, predictor.calibration.temperature)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    own: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    size, channels = classifier.backbone.config.image_size, classifier.backbone.config.channels
    described = {name: own[name] for name in _CONFIG if own.get(name) is not None}
    described |= {
        "tag": "visionadapt",
        "custom_load": False,
        "input_size": [channels, size, size],
        "num_classes": len(classifier.classes),
        **_preprocessing(predictor.prepare, classifier.backbone.config.channels),
    }
    arguments: dict[str, Any] = {} if channels == 3 else {"in_chans": channels}
    if own.get("fixed_input_size"):
        arguments["img_size"] = size
    config = {
        "architecture": classifier.backbone.name.partition(".")[0],
        "num_classes": len(classifier.classes),
        "num_features": classifier.backbone.num_features,
        "label_names": list(classifier.classes),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": described,
    }
    write_bytes(out / "model.safetensors", safetensors_bytes(tensors, {"format": "pt"}))
    write_json(out / "config.json", config)


@torch.no_grad()
def _divide_head(model: Any, temperature: float) -> None:
    """Divide the logits of a timm model by a temperature."""
    found = model.get_classifier()
    for head in found if isinstance(found, tuple | list) else (found,):
        if isinstance(head, nn.Linear):
            for parameter in head.parameters():
                parameter.div_(temperature)


def _preprocessing(prepare: Preprocessing, channels: int) -> dict[str, Any]:
    """Return a preprocessing in timm's words."""
    found: dict[str, Any] = {}
    if prepare.normalize is not None:
        for name in ("mean", "std"):
            value = getattr(prepare.normalize, name)
            found[name] = list(value) if isinstance(value, tuple) else [value] * channels
    if prepare.resize is not None:
        found["interpolation"] = prepare.resize.interpolation
        found["crop_pct"] = prepare.resize.crop_pct
        found["crop_mode"] = _CROP_MODES[prepare.resize.policy]
    return found
