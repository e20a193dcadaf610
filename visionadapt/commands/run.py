"""`Run`: the folder and the options of a training run, and where its progress is reported."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionadapt import trackers
from visionadapt.console.reporter import Reporter
from visionadapt.core.settings import TrainingSettings
from visionadapt.frozen.features import Progress
from visionadapt.model.preprocessing import range_text
from visionadapt.runs.options import ACTIONS, FREE_ON_RESUME, RunOptions, by_name
from visionadapt.system import distributed
from visionadapt.system.locks import FolderLocks
from visionadapt.training.steps import Training


class TimeOverError(Exception):
    """The time of --max-minutes is over, and epochs are left."""


@dataclass(frozen=True)
class Fitting:
    """How a run's epochs are fitted into its time, so that the learning rate ends at zero.

    Attributes:
        pace: seconds that are taken for each one that was expected.
        share: of the time that the epochs take at most, where they have enough images in all even so.
    """

    pace: float = 1.0
    share: float = 1.0


@dataclass(frozen=True)
class Run:
    """The folder and options of a run, and where its progress is reported.

    `finishing` trains no more epochs. `ending` ends the run with its best epoch when the time of --max-minutes is over,
    wherever that is. With a `fitting`, such a run begins with fewer epochs where the time is too short for all. A run
    that is `like` another one must have that one's images.
    """

    folder: Path
    options: RunOptions
    settings: TrainingSettings
    reporter: Reporter
    tracking: trackers.Tracking
    locks: FolderLocks
    started: float
    finishing: bool = False
    ending: bool = False
    fitting: Fitting | None = None
    like: Path | None = None

    def names(self) -> dict[str, Any]:
        """Return every option and setting by name."""
        return by_name(self.options, self.settings)

    def fixed(self) -> dict[str, Any]:
        """Return the options and settings that the run has from beginning to end."""
        free = (*FREE_ON_RESUME, *ACTIONS)
        return {name: value for name, value in self.names().items() if name not in free}

    def decided(self, training: Training) -> Run:
        """Return the run with what its images decided, the sample range and the number of epochs, to be kept."""
        sample_range = range_text(training.prepare.decode.sample_range)
        options = dataclasses.replace(self.options, sample_range=sample_range)
        return dataclasses.replace(self, options=options, settings=training.settings)

    def seconds_left(self) -> float:
        """Return what is left of the time of --max-minutes, the same in every process; infinite without."""
        minutes = self.options.max_minutes
        if minutes is None:
            return math.inf
        return distributed.from_first(lambda: self.started + 60 * minutes - time.monotonic())

    def watched(self, progress: Progress) -> Progress:
        """Return a progress function that raises TimeOverError where a run that is `ending` has no time left."""

        def watch(done: int, total: int) -> None:
            progress(done, total)
            if self.ending and done < total and self.seconds_left() < 0:
                raise TimeOverError

        return watch
