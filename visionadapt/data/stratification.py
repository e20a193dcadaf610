"""Assign multi-label rows to splits so that each split gets its share of every label."""

from __future__ import annotations

from collections.abc import Sequence

from visionadapt.core.naming import stable_hash


def stratified_sides(labels: Sequence[Sequence[int]], shares: Sequence[float], orders: Sequence[int]) -> list[int]:
    """Return the split ("side") of each row by iterative stratification.

    Sechidis, Tsoumakas & Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011, algorithm 1. The label
    with the fewest unassigned rows comes first; each of its rows goes to the side with the highest demand for this
    label; ties go to the side with the highest demand for rows, then by hash. The demand of a side is its share of the
    rows less those that it has. Rows without labels come last.

    Args:
        labels: the distinct labels of each row.
        shares: the sides' shares, which sum to 1.
        orders: the rows' hashes, which determine the order of a label's rows and break ties.
    """
    return _Stratification(labels, shares, orders).run()


class _Stratification:
    def __init__(self, labels: Sequence[Sequence[int]], shares: Sequence[float], orders: Sequence[int]) -> None:
        self.labels, self.orders = labels, orders
        self.side_of = [-1] * len(labels)
        self.holders: dict[int, list[int]] = {}
        for row in sorted(range(len(labels)), key=lambda row: orders[row]):
            for label in labels[row]:
                self.holders.setdefault(label, []).append(row)
        self.left = {label: len(rows) for label, rows in self.holders.items()}
        self.wanted = [share * len(labels) for share in shares]
        self.wanted_of = {label: [share * count for share in shares] for label, count in self.left.items()}

    def run(self) -> list[int]:
        while self.left:
            rarest = min(self.left, key=lambda label: (self.left[label], label))
            for row in self.holders[rarest]:
                if self.side_of[row] < 0:
                    self._put(row, self.wanted_of[rarest])
            self.left = {label: count for label, count in self.left.items() if count}
        for row in sorted(range(len(self.labels)), key=lambda row: self.orders[row]):
            if self.side_of[row] < 0:
                self._put(row, self.wanted)
        return self.side_of

    def _put(self, row: int, wanted: Sequence[float]) -> None:
        """Assign a row to the side with the highest demand."""
        side = max(
            range(len(wanted)),
            key=lambda side: (wanted[side], self.wanted[side], stable_hash(self.orders[row], side)),
        )
        self.side_of[row] = side
        self.wanted[side] -= 1
        for label in self.labels[row]:
            self.wanted_of[label][side] -= 1
            self.left[label] -= 1
