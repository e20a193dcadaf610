"""Measure the search for near duplicates on synthetic hashes and features: time, memory, and what it finds.

    python benchmarks/near_duplicates.py 100000

Features are clustered, so that there are far more candidates than among independent rows; near duplicates with known
partners are planted.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import torch

from visionadapt.auditing.near_duplicates import near_pairs

DIMENSIONS = 1280
PLANTED = 1000


def made_up(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, set[tuple[int, int]]]:
    """Hashes uint8 [2, N, 16], thumbnails uint8 [N, 64, 64], features float32 [N, 1280] and the planted pairs."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((50, DIMENSIONS), np.float32)
    layouts = generator.integers(0, 2, (50, 128), dtype=np.uint8)
    cluster = generator.integers(0, 50, rows)
    features = generator.standard_normal((rows, DIMENSIONS), np.float32)
    for row, own in enumerate(cluster):
        features[row] += 0.9 * centres[own]
    bits = layouts[cluster] ^ (generator.random((2, rows, 128)) < 0.25)
    lumas = generator.integers(0, 256, (rows, 64, 64), dtype=np.uint8)
    places = generator.permutation(rows)[: 2 * PLANTED].reshape(-1, 2)
    for first, second in places:
        features[second] = features[first] + 0.45 * generator.normal(size=DIMENSIONS)
        bits[:, second] = bits[:, first] ^ (generator.random(128) < 0.08)
        lumas[second] = lumas[first]
    return np.packbits(bits, axis=2), lumas, features, {(int(min(pair)), int(max(pair))) for pair in places}


def main(rows: int) -> None:
    """Search, and tell."""
    hashes, lumas, features, planted = made_up(rows)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    found: set[tuple[int, int]] = set()
    for pairs in near_pairs(hashes, lumas, features):
        found.update(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{rows:,} rows, {torch.get_num_threads()} threads: {seconds:.0f} s, {cpu:.0f} CPU seconds")
    print(f"planted pairs found: {len(found & planted)} of {len(planted)}; others: {len(found - planted)}")
    print(
        f"most memory: {after.ru_maxrss / 2**20:.2f} GiB, of which the features are {features.nbytes / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
