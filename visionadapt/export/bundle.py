"""`bundle`: copy a run folder with its backbone's weights inside, so that it opens anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save as safetensors_bytes

from visionadapt.backbones import load
from visionadapt.runs import saved
from visionadapt.runs.folder import check_free
from visionadapt.runs.hub import local_run
from visionadapt.sources.objects.copies import local_file
from visionadapt.system.storage import replacing_folder, write_bytes


def bundle(run: str | Path, out: str | Path, *, weights: str | Path | None = None, overwrite: bool = False) -> Path:
    """Copy a run folder, and write the backbone's weights into the copy.

    `load` then needs neither the file that training read them from, nor a package, nor the model hub.

    Args:
        run: run folder, or `hf://ORG/NAME`.
        out: the folder to make.
        weights: the backbone's weights, if they are elsewhere than in training.
        overwrite: whether to replace a run folder.

    Returns:
        The folder.

    Raises:
        RunError: the folder is there already, cannot be made, or the weights are not those of the training.
    """
    run, out = local_run(run), Path(out)
    check_free(out, overwrite)
    model = saved.load(run, "cpu", weights=weights).classifier
    origin = weights if weights is not None else saved.weights_of(run)
    backbone = load(model.backbone.name, local_file(origin), model.backbone.config.image_size, model.seed)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in backbone.model.state_dict().items()}
    with replacing_folder(out) as fresh:
        shutil.copytree(run, fresh, ignore=shutil.ignore_patterns("checkpoint*.safetensors"))
        write_bytes(fresh / saved.BUNDLED, safetensors_bytes(tensors))
    return out
