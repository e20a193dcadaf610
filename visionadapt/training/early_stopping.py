"""Whether adapters that validate worse than the solved head can still catch up in the epochs that are left."""

from __future__ import annotations

LEAST_EPOCHS = 5
"""Epochs before which nothing is stopped."""
_REACH = ((0.8, 0.05), (0.6, 0.12), (0.4, 0.3))
"""Share of the epochs that is done, and how much the accuracy may still rise after it, a little more than was measured:
docs/measurements/defaults.md."""


def cannot_catch_up(done: int, epochs: int, apart: tuple[float, float, float]) -> bool:
    """Whether training ends below the solved head but for chance.

    Args:
        done, epochs: epochs that are done, and of the whole schedule: the learning rate falls to its end.
        apart: accuracy of the latest epoch minus that of the solved head on the same validation images, and the limits
            of its 95 % interval.
    """
    reach = next((rise for share, rise in _REACH if done >= share * epochs), 1.0)
    return done >= LEAST_EPOCHS and apart[2] < -reach
