"""Train on the same images through every kind of source, and compare what was read and learnt; measure the rate.

    python -m benchmarks.same_rows /data/clothing

The folder holds `train/` and `validation/` with class folders. 400 of its images are stored as a folder, tar archives,
a Parquet file and a saved folder of the `datasets` library, and served as a bucket of which 5 % of the requests fail.
Then images are embedded from a disk and from a bucket with 20 ms per request, and a million objects are listed. Writes
`docs/measurements/sources.md`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import resource
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import datasets

from benchmarks.s3_server import BUCKET, serving
from visionadapt.__main__ import app
from visionadapt.commands import shell
from visionadapt.core.records import Manifest, Record
from visionadapt.runs.ledger import ledger_rows
from visionadapt.sources import BucketSource, FolderSource
from visionadapt.system.storage import file_sha256

PAGE = Path(__file__).parents[1] / "docs" / "measurements" / "sources.md"
ROWS = 400
SMALL = ("--backbone", "test_efficientnet", "--weights", "none")
"""A real timm model with few weights, random ones: reading takes most of the time, so that the rates differ most."""
MANY = 3000
ROUNDS = 3
KEYS = 1_000_000


def chosen(data: Path, folder: Path) -> list[Record]:
    """Copy some images of every class and split into a folder; return its rows."""
    rows = [row for row in FolderSource(data) if row.split in {"train", "val"}]
    for row in rows[:: max(len(rows) // ROWS, 1)][:ROWS]:
        target = folder / row.key
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / row.key, target)
    return list(FolderSource(folder))


def stored(rows: list[Record], folder: Path, out: Path) -> dict[str, str]:
    """Store rows in every form; return what to give as `--data` for each."""
    for number in range(4):
        with tarfile.open(out / f"part-{number:03d}.tar", "w") as archive:
            for row in rows[len(rows) * number // 4 : len(rows) * (number + 1) // 4]:
                data = (folder / row.key).read_bytes()
                info = tarfile.TarInfo(row.key)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    names = list(FolderSource(folder).classes)
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    texts = {name: datasets.Value("string") for name in ("file", "split")}
    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": (folder / row.key).read_bytes(), "path": row.key} for row in rows],
            "label": [names.index(str(row.label)) for row in rows],
            "file": [row.key for row in rows],
            "split": [row.split for row in rows],
        },
        features=datasets.Features({**kinds, **texts}),
    )
    table.to_parquet(out / "hub.parquet")
    table.save_to_disk(out / "saved", num_shards=3)
    with (out / "urls.csv").open("w", newline="") as file:
        lines = [(f"s3://{BUCKET}/{row.key}", row.label, row.split) for row in rows]
        csv.writer(file).writerows([("url", "label", "split"), *lines])
    columns = "image=image, label=label, split=split, key=file"
    return {
        "folder": str(folder),
        "tar shards": str(out / "part-{000..003}.tar"),
        "Hub Parquet": f"parquet({out}/hub.parquet, {columns})",
        "`datasets` folder": f"arrow({out}/saved, {columns})",
        "bucket, 5 % faults": f"s3://{BUCKET}",
        "CSV of URLs, 5 % faults": f"csv({out}/urls.csv, image=url, label=label, split=split, root=s3://{BUCKET})",
        "tar shards in a bucket, 5 % faults": f"s3://{BUCKET}/part-{{000..003}}.tar",
    }


def command(*words: str | Path) -> None:
    """Run a command; raise SystemExit where it fails."""
    code = shell.run(app, [str(word) for word in words])
    if code:
        raise SystemExit(code)


def trained(data: str, run: Path, cache: Path) -> tuple[str, str, int]:
    """Train a head; return the hash of what was read (key, bytes, label, split), of the weights, and the used rows."""
    command("train", "--data", data, "--out", run, "--adapter", "none", "--cache", cache, "--quiet", *SMALL)
    read = sorted((row["file"], row["sha256"], row["part"], *row["labels"]) for row in ledger_rows(run))
    content = hashlib.sha256(repr(read).encode()).hexdigest()
    return content[:16], file_sha256(run / "model.safetensors")[:16], len(read)


def address(url: str) -> Mapping[str, str]:
    """Return the variables that lead to a server."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    return {**keys, "AWS_ENDPOINT_URL": url}


def equal(data: Path, work: Path) -> list[str]:
    """Return the rows of the table of equal results."""
    folder, out = work / "photos", work / "stored"
    out.mkdir()
    rows = chosen(data, folder)
    served = work / "served"
    shutil.copytree(folder, served)
    lines = []
    forms = stored(rows, folder, out)
    for path in out.glob("part-*.tar"):
        (work / "archives").mkdir(exist_ok=True)
        shutil.copy(path, work / "archives")
    for number, (name, text) in enumerate(forms.items()):
        root = work / "archives" if "in a bucket" in name else served
        with serving("--folder", str(root), "--faults", "0.05") as url:
            os.environ.update(address(url))
            content, weights, used = trained(text, work / f"run-{number}", work / f"cache-{number}")
        lines.append(f"| {name} | {used} | `{content}` | `{weights}` |")
        print(lines[-1], flush=True)
    return lines


def rates(data: Path, work: Path) -> list[str]:
    """Return the rows of the table of rates: medians of interleaved runs, each with an empty cache."""
    many = work / "many"
    source = FolderSource(data)
    rows = [row for row in source if row.problem is None]
    for number in range(MANY):
        row = rows[number % len(rows)]
        path = many / f"{row.label}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(row) + number.to_bytes(4))  # after the image's end, so that each has its own hash
    places = {"local disk": str(many), "bucket, 20 ms": f"s3://{BUCKET}"}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
    with serving("--folder", str(many), "--latency", "0.02") as url:
        os.environ.update(address(url))
        for number in range(ROUNDS):
            for name, place in places.items():
                started, cpu = time.perf_counter(), time.process_time()
                cache = work / f"features-{number}-{name[:5]}"
                command("embed", place, "--out", work / "features.npz", "--cache", cache, "--quiet", *SMALL)
                found[name].append((time.perf_counter() - started, time.process_time() - cpu))
                print(name, found[name][-1], flush=True)
    return [
        f"| {name} | {MANY / statistics.median(wall for wall, _ in each):.0f} "
        f"| {1e3 * statistics.median(cpu for _, cpu in each) / MANY:.1f} "
        f"| {min(wall for wall, _ in each):.0f}–{max(wall for wall, _ in each):.0f} |"
        for name, each in found.items()
    ]


def listing() -> str:
    """Return a sentence about listing a million objects."""
    with serving("--count", str(KEYS), "--size", "1000") as url:
        os.environ.update(address(url))
        source, before, started = BucketSource(f"s3://{BUCKET}"), _peak(), time.perf_counter()
        next(iter(source))
        listed, seconds = _peak() - before, time.perf_counter() - started
        Manifest(source, source)
        return (
            f"A bucket of {KEYS:,} objects is listed in {seconds:.0f} s, with {listed:.0f} MB of memory; with the rows "
            f"packed for training, {_peak() - before:.0f} MB."
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Write the page."""
    data = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        same = "\n".join(equal(data, work))
        fast = "\n".join(rates(data, work))
    keys = listing()
    load = f"{os.cpu_count()} cores with a load of {os.getloadavg()[1]:.1f} by other programs and this one"
    PAGE.write_text(
        f"""# The same images from every source

This page is written by `python -m benchmarks.same_rows FOLDER`. A solved head (`--adapter none`, timm's
test_efficientnet with random weights) on {ROWS} images of clothing, each source with an empty cache; the bucket is a
small S3 server on loopback, of which 5 % of the requests end with 503 or in the middle of the body. The first hash is
of key, bytes, label and split of every row, the second of the saved weights.

| source | rows | read | weights |
|---|---|---|---|
{same}

{MANY:,} JPEGs of clothing through `embed` with the same backbone and an empty cache, the whole command, medians of
{ROUNDS} interleaved runs, on {load}:

| source | images per second | CPU ms per image | seconds of each run |
|---|---|---|---|
{fast}

{keys}
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
