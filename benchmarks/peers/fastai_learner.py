"""fastai's vision learner on timm's model: the body frozen, one cycle."""

from __future__ import annotations

from pathlib import Path

import torch
from fastai.vision.all import (
    CrossEntropyLossFlat,
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    get_image_files,
    vision_learner,
)

from benchmarks.peers.common import BATCH, NAME, accuracy_of, backbone, run


def train(data: Path, epochs: int, careful: bool) -> float:
    """Return the test accuracy."""
    loaders = ImageDataLoaders.from_folder(
        data,
        train="train",
        valid="val",
        item_tfms=Resize(224),
        batch_tfms=[Normalize.from_stats([0.5] * 3, [0.5] * 3)],
        bs=BATCH,
        num_workers=2,
    )
    learner = vision_learner(
        loaders, NAME, pretrained=False, normalize=False, metrics=accuracy, loss_func=CrossEntropyLossFlat()
    )
    body = backbone(loaders.c).state_dict()
    own = learner.model[0].model.state_dict()
    learner.model[0].model.load_state_dict({name: body[name] for name in own})
    if careful:
        learner.model.to(memory_format=torch.channels_last)
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, 3e-3)
    files = get_image_files(data / "test")
    probabilities, _ = learner.get_preds(dl=loaders.test_dl(files))
    return accuracy_of(probabilities, [loaders.vocab.o2i[file.parent.name] for file in files])


if __name__ == "__main__":
    run(train)
