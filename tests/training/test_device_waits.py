"""A training step reads nothing back from the device, which a GPU would have to be waited for."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import visionadapt as va
from visionadapt import adapters
from visionadapt.core.settings import TrainingSettings
from visionadapt.frozen.planning import Job
from visionadapt.images import augmentation
from visionadapt.training.steps import Training

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

OPERATIONS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::masked_select")
METHODS = {getattr(Tensor, name) for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__")}


def from_optimizer() -> bool:
    """Whether AdamW asks, whose count of steps is a number on the host, or on the GPU where it is fused."""
    return any("torch/optim" in frame.filename for frame in traceback.extract_stack())


class Reads:
    """Counts reads by operations, and by methods of tensors, which on the CPU need no operation."""

    def __init__(self) -> None:
        self.count = 0
        reads = self

        class Operations(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func.name().split(".")[0] in OPERATIONS:
                    reads.count += not from_optimizer()
                return func(*args, **(kwargs or {}))

        class Methods(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func in METHODS:
                    reads.count += not from_optimizer()
                return func(*args, **(kwargs or {}))

        self.modes = (Operations(), Methods())


@pytest.mark.parametrize(
    "changes", [{}, {"loss": "focal"}, {"class_weights": "balanced"}, {"clip": 0.0}, {"precision": "bfloat16"}]
)
def test_a_step_reads_nothing(tinted_folder: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = dict(zip(("train", "val"), va.split(va.sources.FolderSource(tinted_folder(count=12))), strict=True))
    model = va.classifier(SMALL_BACKBONE, rows["train"].classes, adapters.LoRA(rank=2, blocks="last:1"), "none", 64, 0)
    settings = TrainingSettings(epochs=1, batch_size=4, workers=0, **changes).for_model(adapted=True)
    job = Job(len(rows["train"]), len(rows["val"]), tmp_path)
    training = Training(model, rows, va.preprocessing_for(model), augmentation("none"), settings, job)
    pipeline = training.pipeline(training.plan())
    features = [training.features(pipeline, split) for split in rows]
    reads, at_steps = Reads(), list[int]()
    with reads.modes[0], reads.modes[1]:
        before = reads.count
        list(training.epochs(features[0], features[1], progress=lambda done, total: at_steps.append(reads.count)))
    assert len(at_steps) > 3
    assert at_steps[-2] == at_steps[0]  # with the last step, the losses of all are read
    assert at_steps[-1] > at_steps[-2]
    assert before < at_steps[0]  # reads are noticed: the statistics of the features are
