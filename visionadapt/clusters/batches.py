"""`Classify`: a trained classifier for the batches of another engine, such as those of Ray's map_batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from visionadapt.prediction.tables import columns_of
from visionadapt.runs import saved

Batch = TypeVar("Batch", bound=Mapping[str, Any])


class Classify:
    """A callable that adds predictions to batches of images, and takes the images away.

    A batch is a mapping of columns (NumPy arrays or lists), or a pandas DataFrame; the same kind is returned. It gets
    the columns of `visionadapt predict --out predictions.parquet` but `file`: label, probability, abstain, distance,
    problem and probabilities; labels in place of the first three where an image may have several. An image that cannot
    be used stays with its problem, and its other cells are None. The numbers depend on no other image of the batch.

    Args:
        run: the run folder, at a path that every machine sees, or `hf://ORG/NAME`.
        column: holds the images: the bytes of files, paths, or arrays [H, W, C].
        keep: whether the images stay in the batch.
        device: where to compute.
        weights: the backbone's weights, if they are elsewhere than in training, and not in the folder.

    Raises:
        RunError: it is no run folder, is damaged, or the backbone's weights are not those of the training.
    """

    def __init__(
        self,
        run: str | Path,
        column: str = "bytes",
        *,
        keep: bool = False,
        device: str = "auto",
        weights: str | None = None,
    ) -> None:
        self._predictor = saved.load(run, device, weights=weights).in_bulk()
        self._column, self._keep = column, keep

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with predictions."""
        found = self._predictor.predict_all(batch[self._column])
        added = {name: _array(cells) for name, cells in columns_of(found, self._predictor.task).items()}
        kept = [name for name in batch if self._keep or name != self._column]
        if not hasattr(batch, "assign"):
            return {**{name: batch[name] for name in kept}, **added}  # type: ignore[return-value]
        frame: Any = batch
        return frame[kept].assign(**added)  # type: ignore[no-any-return]


def _array(cells: list[Any]) -> Any:
    """An array of one axis, whatever the cells are; of objects where some are missing, or are lists or strings."""
    if cells and all(isinstance(cell, float | bool) for cell in cells):
        return np.array(cells)
    array = np.empty(len(cells), object)
    array[:] = cells
    return array
