"""Split rows into training and validation, identically on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress

import numpy as np

from visionadapt.core.naming import stable_hash
from visionadapt.core.records import FrozenSource, Manifest
from visionadapt.core.settings import WantedTask
from visionadapt.data.dataset import Finding
from visionadapt.data.groups import Group, Sides
from visionadapt.data.measured_labels import check_not_measured
from visionadapt.data.reasons import commonest
from visionadapt.data.stratification import stratified_sides
from visionadapt.errors import SplitError
from visionadapt.sources.opening import RowsLike, manifest_of, source_of
from visionadapt.tasks import TaskName


def split(rows: RowsLike, val: float = 0.2, seed: int = 0, task: WantedTask = "auto") -> tuple[Manifest, Manifest]:
    """Return the training and validation splits; rows marked `test` are in neither.

    If rows are marked `val`, they are the validation split. Otherwise a share `val` of each class is taken: the rows
    with the smallest hash of (seed, key), rounded, at least one and never all. A row's split depends neither on the
    machine nor on the order of rows nor on other classes. The only usable row of a class is in training.

    Groups are never divided; a row without a group is its own group. Groups are assigned from largest to smallest, ties
    by their hash of (seed, name), to the split that keeps the classes' shares nearest to `val`; see `groups.Sides`. A
    class with several groups is in both splits if possible, one with a single group in training. `SplitReport`
    describes the result.

    If the task is `multilabel`, or `auto` and some row has several labels, rows without groups are split by iterative
    stratification; see `stratification.stratified_sides`. A class with a single row is in training.

    Args:
        rows: a source, a manifest, a folder's path, a spec as in `--data`, a pandas DataFrame, an Arrow table,
            or a list of `(path, label)`; see `sources.opening.RowsLike`.
        val: share of each class for validation, above 0 and below 1.
        seed: determines which rows are chosen.
        task: `auto` takes the task from the labels.

    Raises:
        SplitError: `val` is out of range, there are fewer than two classes, a class has no usable row to train on, a
            row has several labels though the task is `single`, or the task is `auto` and the labels are measurements;
            see `measured_labels`.
    """
    manifest = _without_test(rows)
    _check_classes(manifest)
    several = task_of(task, manifest) == "multilabel"
    if task == "auto" and not several:
        check_not_measured(manifest)
    marked = np.fromiter((part == "val" for part in manifest.each_split()), np.bool_, len(manifest))
    if marked.any():
        train, chosen = (manifest.select(compress(range(len(manifest)), marked == side)) for side in (False, True))
    else:
        divide = _grouped if _has_groups(manifest) else _stratified_by_labels if several else _stratified
        train, chosen = trainable(*divide(manifest, _share(val), seed), problem=Manifest.problem)
    _check_training(train, val=chosen)
    return train, chosen


Problem = Callable[[Manifest, int], str | None]
"""Returns why a row cannot be used; None where it can."""


def trainable(train: Manifest, val: Manifest, problem: Problem) -> tuple[Manifest, Manifest]:
    """Move a row from the second split to the first for each class that has no usable row in the first.

    Rows of its group move with it. `problem` is called until a usable row of each class is found.
    """
    missing = without_usable(train, problem)
    moved: set[int] = set()
    for row, labels in enumerate(val.each_labels()) if missing else ():
        if not missing.isdisjoint(labels) and problem(val, row) is None:
            missing.difference_update(labels)
            moved.add(row)
    if not moved:
        return train, val
    groups = {val.group(row) for row in moved} - {None}
    moved.update(row for row, group in enumerate(val.each_group()) if group in groups)
    return train.including(val, moved), val.select(row for row in range(len(val)) if row not in moved)


def without_usable(rows: Manifest, problem: Problem) -> set[int]:
    """Return the classes without a usable row, as indices."""
    missing = set(range(len(rows.classes)))
    for row, labels in enumerate(rows.each_labels()):
        if not missing.isdisjoint(labels) and problem(rows, row) is None:
            missing.difference_update(labels)
    return missing


def folds(rows: RowsLike, k: int = 5, seed: int = 0, task: WantedTask = "auto") -> Iterator[tuple[Manifest, Manifest]]:
    """Return k pairs of training and validation splits; each row is validated in one of them, test rows in none.

    Each class is distributed in the order of its rows' hashes of (seed, key), so that folds differ by at most one row
    per class, and by one row in total. Groups stay together, by the rule of `split` with a share 1/k per fold;
    multi-label rows are distributed by iterative stratification. The rows' own train and val marks are ignored.

    Args:
        rows: rows in any form that `split` takes.
        k: number of folds, 2 or more.
        seed: determines the fold of each row.
        task: `auto` takes the task from the labels.

    Raises:
        SplitError: there are fewer than two folds or classes, fewer rows or groups than folds, a class is missing from
            some training split, a row has several labels though the task is `single`, or the task is `auto` and the
            labels are measurements.
    """
    manifest = _without_test(rows)
    _check_classes(manifest)
    several = task_of(task, manifest) == "multilabel"
    if task == "auto" and not several:
        check_not_measured(manifest)
    if k < 2:
        raise SplitError(f"{k} folds cannot be: give 2 or more")
    deal = _folds_by_group if _has_groups(manifest) else _folds_by_labels if several else _folds_by_class
    fold_of = deal(manifest, k, seed)
    return (_pair(manifest, fold_of, fold) for fold in range(k))


def fold_of(text: str) -> tuple[int, int]:
    """Return the number of a fold, from 0, and of all folds, from a text such as `2/5`; raise SplitError otherwise."""
    number, _, k = text.partition("/")
    if not (number.isdecimal() and k.isdecimal() and 1 <= int(number) <= int(k) and int(k) >= 2):
        raise SplitError(f"--fold {text} is no fold: give its number and that of all folds, such as 2/5")
    return int(number) - 1, int(k)


def task_of(wanted: WantedTask, *parts: Manifest) -> TaskName:
    """Return the requested task; `auto` gives `multilabel` if some row has several labels, otherwise `single`.

    Raises:
        SplitError: `single` is requested, and some row has several labels.
    """
    if wanted == "single":
        for part in parts:
            check_single_labels(part)
    if wanted == "auto":
        return "multilabel" if any(has_several_labels(part) for part in parts) else "single"
    return wanted


def check_usable(parts: Mapping[str, tuple[Manifest, Sequence[Finding]]]) -> None:
    """Raise SplitError if the usable rows of the splits do not suffice for training; the message says why.

    Args:
        parts: all rows of the splits `train` and `val`, and the finding of each row.
    """
    (train, found), (val, found_val) = parts["train"], parts["val"]
    _check_training(train, [finding.problem for finding in found])
    problems = [finding.problem for finding in found_val]
    if None not in problems:
        reasons = _reasons(val, problems, range(len(val))) or "it has no rows"
        raise SplitError(f"no usable image to validate with: {reasons}; add some, or let --val take a share of train/")


def _without_test(rows: RowsLike) -> Manifest:
    source = source_of(rows)
    if not isinstance(source, Manifest | FrozenSource):
        return Manifest(source, (record for record in source if record.split != "test"))
    manifest = manifest_of(source)
    kept = (index for index, part in enumerate(manifest.each_split()) if part != "test")
    return manifest.select(kept).with_classes(source.classes)


def _share(val: float) -> float:
    if not 0 < val < 1:
        raise SplitError(f"--val {val} is no share: give a number between 0 and 1, such as 0.2")
    return val


def _stratified(manifest: Manifest, val: float, seed: int) -> tuple[Manifest, Manifest]:
    chosen: set[int] = set()
    for ranked in _ranked(manifest, seed).values():
        chosen.update(ranked[: min(max(round(len(ranked) * val), 1), len(ranked) - 1)])
    rows: Sequence[int] = range(len(manifest))
    return manifest.select(i for i in rows if i not in chosen), manifest.select(i for i in rows if i in chosen)


def _stratified_by_labels(manifest: Manifest, val: float, seed: int) -> tuple[Manifest, Manifest]:
    side_of = _sides_by_labels(manifest, (1 - val, val), seed)
    train, chosen = (manifest.select(i for i, own in enumerate(side_of) if own == side) for side in (0, 1))
    return train, chosen


def _folds_by_labels(manifest: Manifest, k: int, seed: int) -> list[int]:
    """Return the fold of each row."""
    if len(manifest) < k:
        raise SplitError(f"{k} folds of {len(manifest)} images are not possible: give fewer folds")
    return _sides_by_labels(manifest, (1 / k,) * k, seed)


def _sides_by_labels(manifest: Manifest, shares: Sequence[float], seed: int) -> list[int]:
    """Return the split of each row by iterative stratification; unusable rows are stratified separately.

    A class with several rows is in two splits if possible; one with a single row is in the first.
    """
    rows = range(len(manifest))
    orders = [stable_hash(seed, manifest.key(row)) for row in rows]
    usable = [row for row in rows if manifest.problem(row) is None]
    rest = [row for row in rows if manifest.problem(row) is not None]
    labels = [tuple(dict.fromkeys(manifest.labels(row))) for row in usable]
    sides = Sides([Group(orders[row], (row,), Counter(own)) for row, own in zip(usable, labels, strict=True)], shares)
    single = {places[0] for places in sides.holders.values() if len(places) == 1}
    sides.take(stratified_sides(labels, shares, [orders[row] for row in usable]), single)
    unusable = stratified_sides([()] * len(rest), shares, [orders[row] for row in rest])
    side_of = dict(zip((*usable, *rest), (*sides.side_of, *unusable), strict=True))
    return [side_of[row] for row in rows]


def _folds_by_class(manifest: Manifest, k: int, seed: int) -> list[int]:
    """Return the fold of each row."""
    if len(manifest) < k:
        raise SplitError(f"{k} folds of {len(manifest)} images are not possible: give fewer folds")
    fold_of = [0] * len(manifest)
    classes = sorted(_ranked(manifest, seed).items())
    single = next((label for label, ranked in classes if label >= 0 and len(ranked) == 1), None)
    if single is not None:
        raise SplitError(f"class {manifest.classes[single]!r} has 1 image; folds need 2 at least, in different ones")
    dealt = (index for _, ranked in classes for index in ranked)
    for place, index in enumerate(dealt):
        fold_of[index] = place % k
    return fold_of


def _pair(manifest: Manifest, fold_of: Sequence[int], fold: int) -> tuple[Manifest, Manifest]:
    train = manifest.select(index for index, own in enumerate(fold_of) if own != fold)
    val = manifest.select(index for index, own in enumerate(fold_of) if own == fold)
    _check_training(train, val=val)
    return train, val


def _ranked(manifest: Manifest, seed: int) -> dict[int, list[int]]:
    """Return the rows of each class in the order of their hash of (seed, key)."""
    classes = _by_class(manifest)
    for indices in classes.values():
        indices.sort(key=lambda index: (stable_hash(seed, key := manifest.key(index)), key))
    return classes


def _grouped(manifest: Manifest, val: float, seed: int) -> tuple[Manifest, Manifest]:
    groups = _groups(manifest, seed)
    sides = Sides(groups, (1 - val, val))
    sides.balance(fixed={places[0] for label, places in sides.holders.items() if label >= 0 and len(places) == 1})
    chosen = {index for group, side in zip(groups, sides.side_of, strict=True) if side for index in group.rows}
    if not any(manifest.problem(index) is None for index in chosen):
        _check_training(manifest)  # where no row can be used, it is not for the groups
        raise SplitError(
            "every class comes from one group, so that none can be spared; divide by no group, or mark rows val"
        )
    rows: Sequence[int] = range(len(manifest))
    return manifest.select(i for i in rows if i not in chosen), manifest.select(i for i in rows if i in chosen)


def _folds_by_group(manifest: Manifest, k: int, seed: int) -> list[int]:
    """Return the fold of each row."""
    groups = _groups(manifest, seed)
    if len(groups) < k:
        raise SplitError(f"{k} folds of {len(groups)} groups cannot be: give fewer folds")
    sides = Sides(groups, (1 / k,) * k)
    single = next((label for label, places in sides.holders.items() if label >= 0 and len(places) == 1), None)
    if single is not None:
        raise SplitError(f"class {manifest.classes[single]!r} comes from one group; folds by group need 2 at least")
    sides.balance()
    fold_of = [0] * len(manifest)
    for group, side in zip(groups, sides.side_of, strict=True):
        for index in group.rows:
            fold_of[index] = side
    return fold_of


def _groups(manifest: Manifest, seed: int) -> list[Group]:
    """Return the groups from largest to smallest, ties by their hash."""
    members: dict[tuple[str, str], list[int]] = {}
    for index in range(len(manifest)):
        group = manifest.group(index)
        name = ("row", manifest.key(index)) if group is None else ("group", group)
        members.setdefault(name, []).append(index)
    groups = []
    for name, rows in sorted(members.items()):
        usable = [index for index in rows if manifest.problem(index) is None]
        counts = Counter(label for index in usable for label in manifest.labels(index) or (-1,))
        groups.append(Group(stable_hash(seed, *name), tuple(rows), dict(sorted(counts.items()))))
    return sorted(groups, key=lambda group: (-sum(group.counts.values()), group.order))


def _has_groups(manifest: Manifest) -> bool:
    return any(group is not None for group in manifest.each_group())


def check_single_labels(manifest: Manifest) -> None:
    """Raise SplitError if a row has several labels in a single-label task."""
    if not has_several_labels(manifest):
        return
    record = next(record for record in manifest if len(record.labels) > 1)
    raise SplitError(
        f"{record.key} has {len(record.labels)} labels ({', '.join(record.labels)}), and an image can have one here; "
        "drop the others, or leave out --task single and separator="
    )


def has_several_labels(manifest: Manifest) -> bool:
    return any(len(labels) > 1 for labels in manifest.each_labels())


def _by_class(manifest: Manifest) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for index, labels in enumerate(manifest.each_labels()):
        groups.setdefault(labels[0] if labels else -1, []).append(index)
    return groups


def _check_classes(manifest: Manifest) -> None:
    if not len(manifest):
        tests = "only images of test" if any(True for _ in manifest.source) else "no images"
        raise SplitError(f"{manifest.source} holds {tests}")
    if len(manifest.classes) < 2:
        only = f"one class ({manifest.classes[0]})" if manifest.classes else "no labels"
        advice = getattr(manifest.source, "label_advice", None)
        advice = advice or _reasons(manifest, list(manifest.each_problem()), range(len(manifest)))
        raise SplitError(
            f"{manifest.source} has {only}; a classifier needs two classes at least{f'; {advice}' if advice else ''}"
        )


def _check_training(train: Manifest, problems: Sequence[str | None] | None = None, val: Manifest | None = None) -> None:
    """Raise SplitError if a class has no row without a problem; by default the problems that the source reports.

    A class that `val` has is said to be there.
    """
    found = train.each_problem() if problems is None else problems
    usable = train.select(row for row, problem in enumerate(found) if problem is None)
    absent = [label for label, count in enumerate(usable.class_counts()) if count == 0]
    if not absent:
        return
    problems = list(train.each_problem()) if problems is None else problems
    if None not in problems:
        reasons = _reasons(train, problems, range(len(train)))
        raise SplitError(f"no usable image to train on: {reasons or 'all rows are marked val or test'}")
    name, more = train.classes[absent[0]], f" (nor of {len(absent) - 1:,} more classes)" if len(absent) > 1 else ""
    reasons = _reasons(train, problems, [row for row, own in enumerate(train.each_labels()) if absent[0] in own])
    if reasons:
        raise SplitError(f"no usable image of class {name!r}{more} to train on: {reasons}")
    held_out = [row for row, own in enumerate(val.each_labels()) if absent[0] in own] if val is not None else []
    what = f", but {len(held_out):,} to validate with, such as {val.key(held_out[0])}" if val and held_out else ""
    raise SplitError(
        f"no image of class {name!r}{more} to train on{what}; add some, remove the class, or leave it out by "
        f"drop=[{name}]"
    )


def _reasons(manifest: Manifest, problems: Sequence[str | None], rows: Iterable[int]) -> str:
    """Why some rows cannot be used; empty where there are none."""
    rejected = ((manifest[row], problem) for row in rows if (problem := problems[row]) is not None)
    return commonest(rejected, manifest.source)
