"""`Check`: the outcome of one path of the golden images; and what is compared in exports of every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from visionadapt.errors import RunError
from visionadapt.export.diagnosis import first_difference, without_ties
from visionadapt.export.folder import MODELS, PREPARED_MODELS, STAGES
from visionadapt.export.golden import Array
from visionadapt.export.reading import ExportedFolder
from visionadapt.prediction.predictor import Predictor

_MOST_NAMED = 3


@dataclass(frozen=True)
class Check:
    """One path of the golden images.

    Attributes:
        path: what was checked: `files`, `training`, `predict`, `example.py`, or the name of a model's file.
        problems: what is wrong, a line each; none if the path agrees.
        notes: what else is worth knowing.
    """

    path: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether the path agrees."""
        return not self.problems


@dataclass(frozen=True)
class OpenedModel:
    """What a model of an export holds, and what it gives for the golden images.

    Attributes:
        names: the class names in its metadata.
        weights: SHA-256 of each of its constants by name.
        found: results of the stages that it has by name, N images first.
    """

    names: Any
    weights: Mapping[str, str]
    found: Mapping[str, Array]


def model_check(
    exported: ExportedFolder,
    opened: OpenedModel,
    images: Sequence[Array],
    wanted: Mapping[str, Array],
    predictor: Predictor | None,
) -> Check:
    """Compare a model with its export: class names, constants, and the first stage that differs on golden images.

    Args:
        exported: the folder.
        opened: the model.
        images: golden images as the library decodes them, uint8 [H, W, C].
        wanted: what every stage should give for them.
        predictor: the run that was exported, where it is known.
    """
    path = MODELS[exported.kind]
    problems = wrong_names(exported, opened.names, predictor)
    missing = [name for name in STAGES if name not in opened.found]
    if missing:
        return Check(path, (*problems, f"it computes no {missing[0]}, so no export of this version made it"))
    wanted = without_ties(opened.found, wanted, exported.threshold)
    wrong = first_difference(opened.found, wanted, exported.prepare, images)
    return Check(path, (*problems, *wrong, *changed_weights(exported, opened.weights)))


def prepared_check(exported: ExportedFolder, found: Mapping[str, Array], wanted: Mapping[str, Array]) -> Check:
    """Compare the answers of a model that begins at prepared pixels with those that are wanted."""
    wanted = without_ties(found, wanted, exported.threshold)
    return Check(PREPARED_MODELS[exported.kind], first_difference(found, wanted, exported.prepare))


def wrong_names(exported: ExportedFolder, names: Any, predictor: Predictor | None) -> list[str]:
    """Compare the class names in a model with those of the manifest, and of the run."""
    names = names if isinstance(names, list) else []
    for where, classes in (("manifest", exported.classes), ("run", predictor.classes if predictor else None)):
        if classes is not None and names != list(classes):
            place = next((at for at, pair in enumerate(zip(names, classes, strict=False)) if pair[0] != pair[1]), None)
            if place is None:
                return [f"the class names are {len(names)} instead of the {len(classes)} of the {where}"]
            return [
                f"the class names are permuted: {place} is {names[place]!r} instead of {classes[place]!r} ({where})"
            ]
    return []


def changed_weights(exported: ExportedFolder, now: Mapping[str, str]) -> list[str]:
    """Compare the SHA-256 of a model's tensors with those in the manifest."""
    stored = exported.manifest["weights"]
    changed = [name for name in now if stored.get(name) != now[name]]
    more = f" and {len(changed) - _MOST_NAMED} others" if len(changed) > _MOST_NAMED else ""
    return [f"constants differ from the manifest's: {', '.join(changed[:_MOST_NAMED])}{more}"] if changed else []


def not_run(error: Exception) -> RunError:
    """Return the error for a model that its runtime does not open or run."""
    return RunError(f"the model cannot be run ({(str(error).splitlines() or [''])[0]}); export again")
