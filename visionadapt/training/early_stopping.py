"""Whether the epochs that are left can change the result."""

from __future__ import annotations

from collections.abc import Sequence

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


_FLAT_FROM = 1 / 3
"""Share of the epochs before which no loss is flat."""
_LATEST, _FEWEST = 0.1, 5
"""Share of the epochs in which the loss must fall, and how many these are at least."""
_FALL = 0.05
"""Share of the loss by which it must; these were chosen by measurement: docs/measurements/defaults.md."""


def no_longer_falls(losses: Sequence[float], epochs: int) -> bool:
    """Whether the validation loss was about as low before the latest epochs as it is in them.

    That tells something only of averaged weights: without, the loss jumps, and falls in the last epochs, at small
    learning rates.

    Args:
        losses: after each epoch that is done.
        epochs: of the whole schedule.
    """
    latest = max(round(_LATEST * epochs), _FEWEST)
    before = losses[:-latest]
    if len(losses) < _FLAT_FROM * epochs or not before:
        return False
    return not min(losses[-latest:]) <= (1 - _FALL) * min(before)
