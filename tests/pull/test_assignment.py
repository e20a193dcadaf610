"""Splits assigned for good: shares of every class, undivided groups, and no row that moves when others come."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.errors import SplitError
from visionadapt.pull.assignment import SPLITS, AssignableRow, Shares, assign

ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 6).map(str), st.sampled_from([None, *SPLITS])),
    max_size=40,
).map(
    lambda rows: [AssignableRow(f"row{number}", group, label, part) for number, (label, group, part) in enumerate(rows)]
)
SHARES = st.builds(
    Shares, val=st.sampled_from([0.0, 0.2, 0.4]), test=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 3)
)


def placed(rows: list[AssignableRow], shares: Shares) -> list[AssignableRow]:
    parts = dict(assign(lambda: rows, shares))
    return [AssignableRow(row.key, row.group, row.label, row.split or parts[row.key]) for row in rows]


@given(ROWS, SHARES)
def test_every_new_row_gets_one_split_and_no_old_one_moves(rows: list[AssignableRow], shares: Shares) -> None:
    given_now = list(assign(lambda: rows, shares))
    assert Counter(key for key, _ in given_now) == Counter(row.key for row in rows if row.split is None)
    known = {row.split for row in rows}
    allowed = {"train", *(["val"] if shares.val else []), *(["test"] if shares.test else [])} | known
    assert {part for _, part in given_now} <= allowed
    assert list(assign(lambda: placed(rows, shares), shares)) == []


@given(ROWS, SHARES)
def test_new_groups_are_not_divided(rows: list[AssignableRow], shares: Shares) -> None:
    sides = defaultdict(set)
    for row in placed([AssignableRow(row.key, row.group, row.label, None) for row in rows], shares):
        sides[row.group or row.key].add(row.split)
    assert all(len(parts) == 1 for parts in sides.values())


@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 60), min_size=1), SHARES)
def test_each_class_gets_its_shares_and_keeps_a_row_to_train_on(sizes: dict[str, int], shares: Shares) -> None:
    rows = [
        AssignableRow(f"{label}{number}", None, label, None) for label, size in sizes.items() for number in range(size)
    ]
    found = Counter((row.label, row.split) for row in placed(rows, shares))
    for label, size in sizes.items():
        assert found[label, "train"] >= 1
        for part, share in (("val", shares.val), ("test", shares.test)):
            assert abs(found[label, part] - size * share) <= 1
            if size >= 3 and share:
                assert found[label, part] >= 1


def test_added_rows_keep_the_shares_and_join_their_groups() -> None:
    shares = Shares(val=0.25, test=0.25)
    rows: list[AssignableRow] = []
    for size in (8, 20, 100):
        more = [AssignableRow(f"k{number}", None, "ab"[number % 2], None) for number in range(len(rows), size)]
        before = {row.key: row.split for row in rows}
        rows = placed(rows + more, shares)
        assert all(before[row.key] == row.split for row in rows if row.key in before)
        counts = Counter((row.label, row.split) for row in rows)
        assert all(abs(counts[label, part] - size / 8) <= 1 for label in "ab" for part in ("val", "test"))
    groups = placed([AssignableRow(f"g{number}", str(number % 10), "a", None) for number in range(100)], shares)
    side = {row.group: row.split for row in groups}
    later = placed(
        [*groups, *(AssignableRow(f"h{number}", str(number % 10), "b", None) for number in range(30))], shares
    )
    assert all(row.split == side[row.group] for row in later)


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    for val, test in ((1.0, 0.0), (0.6, 0.4), (-0.1, 0.0), (float("nan"), 0.0)):
        with pytest.raises(SplitError, match=r"--val .* and --test "):
            Shares(val, test)
