"""`Clock`: how long each phase of a run took, and its largest memory, in this process and in those before."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from visionadapt.errors import RunError
from visionadapt.runs.folder import read_json
from visionadapt.system.process import peak_memory
from visionadapt.system.storage import write_json

FILE = "spent.json"
"""A file of a run folder until the run has its `summary.json`, which then says the same."""


class Clock:
    """Wall-clock `seconds` of each phase of a run by name, and `peak_bytes`, None where that is not known.

    From `keep_in` on, they are in the run folder, so that a run that is stopped goes on with them.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._folder: Path | None = None
        self._peak = 0
        self._name, self._since = "", 0.0

    @property
    def peak_bytes(self) -> int | None:
        """Largest memory so far."""
        return max(self._peak, peak_memory() or 0) or None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what runs inside."""
        self._name, self._since = name, time.perf_counter()
        try:
            yield
        finally:
            self.note()
            self._name = ""

    def note(self) -> None:
        """Count the phase until now, and write it down; what was measured is not worth an error."""
        if self._name:
            now = time.perf_counter()
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
            self._since = now
        if self._folder is not None:
            with suppress(OSError, RunError):
                write_json(self._folder / FILE, self.facts())

    def facts(self) -> dict[str, Any]:
        """Return the seconds and the memory as plain data, as `summary.json` has them."""
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        return {"seconds": seconds, "peak_bytes": self.peak_bytes}

    def keep_in(self, folder: Path) -> None:
        """Add what earlier processes took for the run in this folder; keep it there from now on."""
        seconds, self._peak = spent(folder)
        self.seconds = {**seconds, **{name: seconds.get(name, 0.0) + own for name, own in self.seconds.items()}}
        self._folder = folder
        self.note()

    def end(self) -> None:
        """Remove what was kept, now that the run has its summary."""
        if self._folder is not None:
            (self._folder / FILE).unlink(missing_ok=True)


def spent(folder: Path) -> tuple[dict[str, float], int]:
    """Return the seconds that a run took so far, by phase, and its largest memory in bytes; 0 where it is not known."""
    for name in (FILE, "summary.json"):
        with suppress(RunError):
            facts = read_json(folder, name)
            seconds, peak = facts.get("seconds"), facts.get("peak_bytes")
            known = seconds.items() if isinstance(seconds, Mapping) else ()
            return {phase: float(own) for phase, own in known if _is_number(own)}, peak if _is_number(peak) else 0
    return {}, 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")
