"""Choose the rows to evaluate on: one split of the data, with the classes of the classifier first."""

from __future__ import annotations

from visionadapt.core.naming import natural_key
from visionadapt.core.records import Manifest, Source
from visionadapt.data.splits import task_of
from visionadapt.errors import SourceError
from visionadapt.tasks import TaskName


def labelled_rows(
    rows: Source | Manifest, split: str | None, known: tuple[str, ...], task: TaskName = "single"
) -> tuple[Manifest, str]:
    """Return the rows of one split and its name; classes that are not `known` follow those that are.

    Args:
        rows: the data.
        split: `train`, `val` or `test`; None takes the last of them that the data has, or all rows if it has none.
        known: classes of the classifier, in the order of its logits.
        task: of the classifier.

    Raises:
        SourceError: the source has no such split, or no row of it has a label.
        SplitError: a row has several labels, and the task is `single`.
    """
    source, records = (rows.source if isinstance(rows, Manifest) else rows), list(rows)
    splits = {record.split for record in records if record.split is not None}
    if split is not None and split not in splits:
        raise SourceError(f"--split {split}: {source} has {', '.join(sorted(splits)) or 'no splits'}")
    name = split or next((each for each in ("test", "val", "train") if each in splits), None)
    chosen = [record for record in records if name is None or record.split == name]
    if not chosen:
        raise SourceError(f"{source} has no images; name a folder or a table that has some")
    found = {label for record in chosen for label in record.labels}
    if not found:
        raise SourceError(f"{source}: no image has a label to compare with; give class folders, or label=…")
    manifest = Manifest(source, chosen, (*known, *sorted(found - set(known), key=natural_key)))
    task_of(task, manifest)
    return manifest, name or ""
