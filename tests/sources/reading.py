"""What a fresh process runs in a test, in a module that is quick to import."""

from __future__ import annotations

from multiprocessing.queues import Queue

from visionadapt.core.records import Manifest


def read_all(manifest: Manifest, queue: Queue[list[tuple[str, bytes]]]) -> None:
    """Put every row's key and bytes into a queue."""
    queue.put([(manifest.key(index), manifest.read(index)) for index in range(len(manifest))])
