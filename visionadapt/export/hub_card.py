"""The model card of a pushed classifier: its README.md, from the numbers and limits of its run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionadapt.prediction.predictor import Predictor
from visionadapt.runs.folder import read_json
from visionadapt.runs.ledger import LEDGER

_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "openrail")
"""Licences that the hub knows by these names, of those that timm states."""


def card(run: Path, predictor: Predictor, repository: str, license_name: str | None, refused: str | None) -> str:
    """Return the text of README.md.

    Args:
        run: run folder, whose numbers it tells.
        predictor: the classifier.
        repository: `ORG/NAME`, or the name of a folder.
        license_name: the licence of the backbone's weights, as far as timm knows it.
        refused: why timm cannot load the classifier; None where it can.
    """
    return (
        "\n\n".join(
            part
            for part in (
                _front_matter(license_name, refused is None),
                f"# {repository.rpartition('/')[2]}",
                _what(predictor, license_name),
                _numbers(run, predictor),
                _limits(predictor),
                _use(predictor, repository, refused),
                _data(run),
            )
            if part
        )
        + "\n"
    )


def _front_matter(license_name: str | None, timm: bool) -> str:
    known = (license_name or "").lower() in _LICENSES
    lines = [
        "---",
        f"license: {(license_name or '').lower() if known else 'other'}",
        f"library_name: {'timm' if timm else 'visionadapt'}",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        *(["- timm"] if timm else []),
        "- visionadapt",
        "---",
    ]
    return "\n".join(lines)


def _what(predictor: Predictor, license_name: str | None) -> str:
    model = predictor.classifier
    kind = "any number of these classes" if len(model.thresholds) else "one of these classes"
    names = "\n".join(f"    {json.dumps(name, ensure_ascii=False)}" for name in model.classes)
    license_told = license_name or "one that timm does not state; see where they come from"
    return (
        f"An image classifier, trained with visionadapt on `{model.backbone.name}`. It gives each image {kind}:\n\n"
        f"{names}\n\nThe licence of the backbone's pretrained weights is {license_told}."
    )


def _numbers(run: Path, predictor: Predictor) -> str:
    """Return what was measured on the validation images; empty for a run that was saved from Python."""
    path = run / "validation"
    if not (path / "evaluation.json").exists():
        return ""
    found: Mapping[str, Any] = read_json(path, "evaluation.json")
    rows = [
        f"| {name.replace('_', ' ')} | {value:.4f} | {_interval(found.get('intervals', {}).get(name))} |"
        for name, value in found.items()
        if isinstance(value, float) and name not in {"temperature", "threshold"}
    ]
    summary = read_json(run, "summary.json") if (run / "summary.json").exists() else {}
    images = f" on {summary['val_images']} validation images" if isinstance(summary.get("val_images"), int) else ""
    table = "\n".join(["| metric | value | 95 % interval |", "|---|---|---|", *rows])
    return f"## Measured\n\nMeasured{images}, which also chose the epoch, the temperature and the threshold:\n\n{table}"


def _interval(bounds: Any) -> str:
    numbers = isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(bound, float) for bound in bounds)
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}" if numbers else ""


def _limits(predictor: Predictor) -> str:
    threshold = predictor.calibration.threshold
    lines = [
        "It knows its own classes only, and assigns one of them to an image of anything else.",
        "The numbers hold for images like those of the training, and not for other cameras, places or times.",
    ]
    if not len(predictor.classifier.thresholds):
        lines.append(f"Below a probability of {threshold:.4f}, have a person look at the image.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _use(predictor: Predictor, repository: str, refused: str | None) -> str:
    own = f'import visionadapt as va\n\npredictor = va.load("hf://{repository}")\nprint(predictor.predict("image.jpg"))'
    told = f"## Use\n\nWith its preprocessing, calibration and distance, in visionadapt:\n\n```python\n{own}\n```"
    if refused is not None:
        return f"{told}\n\ntimm alone cannot load it: {refused}."
    code = f'import timm\n\nmodel = timm.create_model("hf-hub:{repository}", pretrained=True).eval()'
    link = "sigmoid" if len(predictor.classifier.thresholds) else "softmax"
    return (
        f"{told}\n\nIn timm, with `timm.data.create_transform(**timm.data.resolve_model_data_config(model))`; the "
        f"{link} of its output is calibrated:\n\n```python\n{code}\n```"
    )


def _data(run: Path) -> str:
    """Return the hash of the data that the run was trained on; empty for a run that was saved from Python."""
    stored = read_json(run, "config.json").get("manifest") if (run / "config.json").exists() else None
    if isinstance(stored, str):
        return f"## Data\n\nTrained on the manifest with the fingerprint `{stored}`."
    if not (run / LEDGER).exists():
        return ""
    digest = hashlib.sha256((run / LEDGER).read_bytes()).hexdigest()
    return f"## Data\n\nThe list of the images, labels and splits it was trained on has the SHA-256 `{digest}`."
