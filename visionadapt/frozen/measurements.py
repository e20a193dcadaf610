"""What was measured once on this machine and is read ever after, so that a stopwatch never changes a result."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visionadapt.errors import RunError
from visionadapt.system.storage import write_json


class Measurements:
    """Named figures, each kept under everything that it depends on, in one JSON file.

    Args:
        folder: the cache's folder; None forgets everything with the object.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = None if folder is None else folder / "measurements.json"
        self._own: dict[str, Any] = {}

    def once(self, what: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """Return what is kept for `what` on this machine; where nothing is, measure and keep it.

        Args:
            what: everything that the figure depends on, as plain data; the machine is added.
            measure: gives plain data.

        Raises:
            RunError: the file cannot be written.
        """
        text = json.dumps({**what, "machine": machine()}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:24]
        found = self._read().get(key)
        if found is not None:
            return found["value"]
        value = measure()
        return self._keep(key, {**what, "value": value})["value"]

    def _read(self) -> dict[str, Any]:
        if self.file is None or not self.file.exists():
            return self._own
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        entries = kept.items() if isinstance(kept, dict) else ()
        return {key: entry for key, entry in entries if isinstance(entry, dict) and "value" in entry}

    def _keep(self, key: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Keep an entry, unless another process has kept one meanwhile; return the one that stands."""
        if self.file is None:
            return dict(self._own.setdefault(key, entry))
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                kept = self._read()
                standing: dict[str, Any] = kept.setdefault(key, entry)
                write_json(self.file, kept)
        except OSError as error:
            raise RunError(f"{self.file} cannot be written ({error.strerror}); give --cache another folder") from error
        return standing


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} {platform.machine()}"
