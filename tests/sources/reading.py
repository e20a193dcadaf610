"""Code that tests run in a fresh process, in a module that imports fast."""

from __future__ import annotations

from multiprocessing.queues import Queue

from visionadapt.core.records import Manifest


def read_all(manifest: Manifest, queue: Queue[list[tuple[str, bytes]]]) -> None:
    """Put every row's key and bytes into a queue."""
    queue.put([(manifest.key(index), manifest.read(index)) for index in range(len(manifest))])
