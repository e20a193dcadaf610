"""What dividing rows into shards and merging their tables costs, on synthetic rows: `benchmarks/shard_costs.py`.

    python -m benchmarks.shard_costs 1000000 10000000
    python -m benchmarks.shard_costs --planned 10000000 100000000 1000000000

Rows have keys such as `class0001/000000001.jpg`, and tables one column of numbers beside them. Each size is measured in
a process of its own, in CPU seconds, which other programs on the machine hardly change.

`--planned` plans a single shard of about 65,536 rows among all rows, as `predict --shard` does on a pulled manifest.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from visionadapt.core.sharding import Shard, all_parts, part_in
from visionadapt.prediction.shards import merge, write_proof

ROWS_A_SHARD = 65_536


class Rows:
    """A manifest of keys that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def key(self, row: int) -> str:
        return f"class{row % 1000:04}/{row:09}.jpg"


def measured(count: int) -> str:
    rows: Any = Rows(count)
    begun = time.process_time()
    parts = all_parts(rows, -(-count // ROWS_A_SHARD))
    divided = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        out, proved = Path(folder) / "table.parquet", 0.0
        for part in parts:
            places = np.asarray(part.places, np.uint64)
            keys = [rows.key(place) for place in places.tolist()]
            parquet.write_table(pa.table({"file": keys, "number": places}), part.shard.path(out))
            begun = time.process_time()
            write_proof(part.shard.path(out), part, "model", 0)
            proved += time.process_time() - begun
        begun = time.process_time()
        merged = merge(out)
        joined = time.process_time() - begun
        assert merged.rows == count
        with parquet.ParquetFile(out) as file:
            for batch in file.iter_batches(1 << 16, columns=["number"]):
                numbers = batch.column(0).to_numpy()
                assert (np.diff(numbers.astype(np.int64)) == 1).all(), "each row once, in order"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"| {count:,} | {len(parts)} | {divided:.1f} | {1e6 * divided / count:.2f} | {memory:.0f} | {proved:.1f} | "
        f"{joined:.1f} | {1e6 * joined / count:.2f} | {most:.0f} |"
    )


def planned(count: int) -> str:
    rows: Any = Rows(count)
    shard = Shard(3, -(-count // ROWS_A_SHARD))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    part = part_in(rows, shard)
    seconds = time.process_time() - begun
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert part.total == count
    return (
        f"| {count:,} | {shard} | {len(part.places):,} | {seconds:,.1f} | {1e6 * seconds / count:.2f} | {grown:.1f} |"
    )


def main() -> None:
    kinds = {"--one": measured, "--plan": planned}
    if sys.argv[1] in kinds:
        print(kinds[sys.argv[1]](int(sys.argv[2])))
        return
    if sys.argv[1] == "--planned":
        print(
            "| rows | shard | rows of the shard | planned, s | µs a row | memory grown, MB |\n|---:|---|" + "---:|" * 4
        )
        for count in sys.argv[2:]:
            subprocess.run([sys.executable, "-m", "benchmarks.shard_costs", "--plan", count], check=True)
        return
    print("| rows | shards | divided, s | µs a row | MB | proofs, s | merged, s | µs a row | MB at most |")
    print("|---:|" + "---:|" * 8)
    for count in sys.argv[1:]:
        subprocess.run([sys.executable, "-m", "benchmarks.shard_costs", "--one", count], check=True)


if __name__ == "__main__":
    main()
