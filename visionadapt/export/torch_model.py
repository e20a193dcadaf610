"""Build one torch.export program of a trained classifier: from images of any size to calibrated answers, by name."""

from __future__ import annotations

import inspect
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from visionadapt.errors import UsageError
from visionadapt.export.folder import MODELS, PREPARED_MODELS, Models, array_digest
from visionadapt.export.served import ServedClassifier, not_traced
from visionadapt.export.torch_resize import resized
from visionadapt.images import Preprocessing
from visionadapt.prediction.predictor import Predictor

METADATA = "metadata.json"
"""The file inside of a program's archive that describes it."""

_EXAMPLE = (23, 37)
"""Height and width to trace with; the program holds an image of this size."""


def torch_files(
    predictor: Predictor, facts: Mapping[str, Any], *, prepared: bool = False, merge: bool = True
) -> Models:
    """Return the programs of a predictor on the CPU in float32 as .pt2 files.

    Args:
        predictor: the classifier; it does not change.
        facts: what the program says of itself.
        prepared: whether to make a second program, which takes `prepared`, float32 [N, C, S, S], resized and
            normalised.
        merge: whether to merge adapters into the weights where they can be.

    Raises:
        UsageError: the classifier or its preprocessing cannot be exported, or torch is too old.
    """
    # Without this option, torch.export fixes the size of images.
    if "prefer_deferred_runtime_asserts_over_guards" not in inspect.signature(torch.export.export).parameters:
        raise UsageError(f"--format torch needs a newer torch than {torch.__version__}; or take --format onnx")
    served = ServedClassifier(predictor.classifier, predictor.calibration, merge=merge)
    blank = predictor.classifier.backbone.blank_pixels(2)
    channels = blank.shape[1]
    image = torch.zeros(2, *_EXAMPLE, channels, dtype=torch.uint8)
    sizes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC} if predictor.prepare.resize else {0: Dim.DYNAMIC}
    if predictor.prepare.resize is None:
        image = torch.zeros(2, *blank.shape[2:], channels, dtype=torch.uint8)
    programs: dict[str, tuple[nn.Module, dict[str, Tensor], dict[str, Any]]] = {
        MODELS["torch"]: (FromImage(served, predictor.prepare), {"image": image}, {"image": sizes})
    }
    if prepared:
        floats = {"prepared": blank.float()}
        programs[PREPARED_MODELS["torch"]] = (FromPrepared(served), floats, {"prepared": {0: Dim.DYNAMIC}})
    described = {**facts, "adapter_merged": served.merged}
    with _without_gradients(served):
        made = {name: _traced(*each) for name, each in programs.items()}
        files = {name: _saved(program, described) for name, program in made.items()}
    return Models(files, {"adapter_merged": served.merged, "weights": digests(made[MODELS["torch"]])})


def digests(program: ExportedProgram) -> dict[str, str]:
    """Return the SHA-256 of each tensor of a program by name, 64 hex digits."""
    tensors = {**program.state_dict, **program.constants}
    return {
        name: array_digest(each.detach().cpu().numpy()) for name, each in tensors.items() if isinstance(each, Tensor)
    }


class FromPrepared(nn.Module):
    """Prepared pixels float32 [N, C, S, S] → answers by name."""

    def __init__(self, served: ServedClassifier) -> None:
        super().__init__()
        self.served = served
        self.training = False

    def forward(self, prepared: Tensor) -> dict[str, Tensor]:
        """Classify resized and normalised pixels."""
        return dict(zip(self.served.answers, self.served(prepared), strict=True))


class FromImage(FromPrepared):
    """Images uint8 [N, H, W, C] → answers and `STAGES` by name; with a ResizeAdapter, of any height and width."""

    def __init__(self, served: ServedClassifier, prepare: Preprocessing) -> None:
        super().__init__(served)
        if not prepare.serialisable:
            raise UsageError("a preprocessing with steps of one's own cannot be exported; save a run without them")
        if prepare.normalize is None:
            raise UsageError("a preprocessing without a NormalizeAdapter cannot be exported; it makes no floats")
        self.resize = prepare.resize
        for name in ("mean", "std"):
            moments = torch.tensor(getattr(prepare.normalize, name), dtype=torch.float32)
            self.register_buffer(name, moments.reshape(-1, 1, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Resize, normalise and classify images."""
        pixels = image.permute(0, 3, 1, 2)
        if self.resize is not None:
            pixels = resized(self.resize, pixels)
        floats = pixels.to(torch.float32) * (1 / 255)
        prepared = (floats - self.get_buffer("mean")) / self.get_buffer("std")
        return {**super().forward(prepared), "resized": pixels, "prepared": prepared}


def _traced(module: nn.Module, example: dict[str, Tensor], sizes: dict[str, Any]) -> ExportedProgram:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(
                module, (), example, dynamic_shapes=sizes, prefer_deferred_runtime_asserts_over_guards=True
            )
    except Exception as error:  # whatever fails in the exporter is told in one line
        raise not_traced("by torch.export", error) from error


def _saved(program: ExportedProgram, facts: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(facts)})
    return file.getvalue()


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Let no parameter need a gradient while it is saved, so that users of the program get plain numbers."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
