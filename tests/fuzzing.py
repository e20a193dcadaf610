"""Mutation fuzzing of every parser of this package: `python -m tests.fuzzing COUNT [SEED] [PARSER…]`.

Each input is a valid one with a few random changes. A parser may return anything, or raise a `VisionAdaptError`, which
the commands turn into one line; any other exception is a bug. The inputs depend only on the seed.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.whole.edited_runs import edited, hostile_values
from visionadapt.errors import VisionAdaptError

_SECONDS = 10
_TOKENS = (
    *(b"(", b")", b"[", b"]", b"{", b"}", b'"', b"'", b"=", b",", b":", b";", b"\\", b"/", b"..", b"\0", b"\n", b"\r"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x1b", b"%", b"\t", b"#", b"@", b"?", b"|"),
    *(b"-1", b"0", b"1e309", b"9" * 400, b"0x10", b"nan", b"null", b"true", b"None", b"import:os", b"os:system"),
    *(b"http://127.0.0.1:9/", b"env:SECRET", b"[" * 100, b"{" * 100, b"(" * 100, b"'''", b"[a]\n", b"[[a]]\n", b"{}"),
    *(
        b"lora",
        b"mixed",
        b"csv",
        b"folder",
        b"rank",
        b"blocks",
        b"image",
        b"label",
        b"last:66%",
        b"first:1",
        b"sep=;\n",
    ),
)


@dataclass(frozen=True)
class Parser:
    """A parser, with valid inputs to change: `parse` takes the bytes, and a folder for files."""

    seeds: tuple[bytes, ...]
    parse: Callable[[bytes, Path], object]
    share: float = 1.0
    """How many of its inputs make a typical run, compared with others."""
    structured: bool = field(default=False)
    """Whether the bytes are a JSON value of which values are changed, instead of bytes."""


def mutated(parser: Parser, draw: random.Random, values: list[Any]) -> bytes:
    """Return one input."""
    data = draw.choice(parser.seeds)
    if parser.structured and draw.random() < 0.9:
        value = json.loads(data)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            value = edited(value, draw, values)
        return json.dumps(value).encode("utf-8", "surrogatepass")
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        data = _changed(data, parser.seeds, draw)
    return data


def _changed(data: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    stop = min(len(data), start + draw.choice((0, 1, 1, 2, 5, 30)))
    kind = draw.randrange(8)
    if kind == 0 and stop > start:
        return data[:start] + bytes([data[start] ^ (1 << draw.randrange(8))]) + data[start + 1 :]
    if kind == 1:
        return data[:start] + data[stop:]
    if kind == 2:
        return data[:start] + data[start:stop] * draw.choice((2, 3, 50)) + data[stop:]
    if kind == 3:
        return data[:start]
    if kind == 4:
        other = draw.choice(seeds)
        return data[:start] + other[draw.randrange(len(other) + 1) :]
    if kind == 5:
        return data[:start] + draw.randbytes(draw.choice((1, 2, 4))) + data[stop:]
    return data[:start] + draw.choice(_TOKENS) + data[stop:]


def _spec(kind: str) -> Callable[[bytes, Path], object]:
    from visionadapt.core import spec
    from visionadapt.runs.trust import wants

    def parse(data: bytes, folder: Path) -> object:
        text = data.decode("utf-8", "surrogateescape")
        wants("data" if kind == "source" else kind, text)
        settings = spec.parse(text, kind)
        with contextlib.suppress(VisionAdaptError):
            text = spec.format(settings, kind)
            assert spec.parse(text, kind) == settings, text
        return settings

    return parse


def _table(suffix: str) -> Callable[[bytes, Path], object]:
    from visionadapt.sources import TableSource
    from visionadapt.sources.tables.readers import SUFFIXES, TableFile

    def parse(data: bytes, folder: Path) -> object:
        path = folder / f"table{suffix}"
        path.write_bytes(data)
        file = TableFile(path, SUFFIXES[suffix])
        rows = [(row.place, row.problem) for row in file.rows(("a.b",))], file.columns(("a.b",))
        source = TableSource(path, image="file", label="label", root=folder)
        return rows, [(record.key, record.labels, record.problem) for record in source], source.classes

    return parse


def _listing(data: bytes, folder: Path) -> object:
    from visionadapt.sources.tables.row import lookup
    from visionadapt.sources.web.client import HttpAnswer
    from visionadapt.sources.web.listing import ListingError, Paging, listed

    paging = Paging("data.items", None, 1, "cursor", "data.next", {}, 5, 1000, 10**6)
    with contextlib.suppress(ListingError):  # the source adds its URL
        for _, row in listed("http://a/", paging, lambda url, query: HttpAnswer(url=url, body=data, next_link=None)):
            for name in ("file", "label", "a.b.c", "tags.0"):
                lookup(row, name)
    return None


def _toml(data: bytes, folder: Path) -> object:
    from visionadapt.train import app

    path = folder / "run.toml"
    path.write_bytes(data)
    from cyclopts import CycloptsError

    with contextlib.suppress(CycloptsError):  # which the shell turns into a line
        return app.parse_args(["--config", str(path)], exit_on_error=False, print_error=False)
    return None


def _plan(data: bytes, folder: Path) -> object:
    from visionadapt.frozen.plan import Plan

    return Plan.from_json(_mapping(data))


def _steps(data: bytes, folder: Path) -> object:
    from visionadapt.images import Preprocessing

    return Preprocessing.from_json(json.loads(data.decode("utf-8", "surrogatepass")))


def _calibration(data: bytes, folder: Path) -> object:
    from visionadapt.runs.saved import read_calibration

    (folder / "calibration.json").write_bytes(data)
    return read_calibration(folder)


def _mapping(data: bytes) -> dict[str, Any]:
    value = json.loads(data.decode("utf-8", "surrogatepass"))
    return value if isinstance(value, dict) else {"": value}


def _facts(data: bytes, folder: Path) -> object:
    import torch

    from visionadapt.runs.saved import read_model
    from visionadapt.runs.tensors import write_tensors

    facts = _mapping(data)
    write_tensors(
        folder / "model.safetensors", {"a": torch.zeros(2)}, {k: v for k, v in facts.items() if k != "digest"}
    )
    (folder / "classes.json").write_text(json.dumps(facts.get("classes")))
    (folder / "preprocess.json").unlink(missing_ok=True)
    return read_model(folder)


def _tensors(data: bytes, folder: Path) -> object:
    from visionadapt.runs.tensors import read_tensors

    (folder / "x.safetensors").write_bytes(data)
    return read_tensors(folder / "x.safetensors")


def _overview(data: bytes, folder: Path) -> object:
    from visionadapt.runs.overview import overview

    for name, value in _mapping(data).items():
        if name in {"config.json", "summary.json", "metrics.jsonl"}:
            (folder / name).write_text(json.dumps(value))
    return overview(folder).to_json()


def _edits(data: bytes, folder: Path) -> object:
    from visionadapt.sources.edited import Edits

    (folder / "findings.csv").write_bytes(data)
    return Edits.read(str(folder / "findings.csv"))


def _words(data: bytes, folder: Path) -> object:
    from visionadapt.frozen.cache.eviction import read_size
    from visionadapt.runs.ledger import most_rejected
    from visionadapt.sources.database.database_url import DatabaseUrl

    text = data.decode("utf-8", "surrogateescape")
    for parse in (read_size, lambda text: most_rejected(text, 100), lambda text: DatabaseUrl(text, None)):
        with contextlib.suppress(VisionAdaptError):
            parse(text)
    return None


def _packed(name: str) -> Callable[[bytes, Path], object]:
    def parse(data: bytes, folder: Path) -> object:
        from visionadapt.sources import ManifestSource

        for other in ("manifest.parquet", "manifest.packed"):
            (folder / other).write_bytes(_pulled()[other])
        (folder / name).write_bytes(data)
        source = ManifestSource(folder)
        return source.classes, [(record.key, record.labels) for record in source], source.fingerprint

    return parse


@cache
def _pulled() -> dict[str, bytes]:
    """The files of a pulled source of four files."""
    from visionadapt import sources
    from visionadapt.pull.pull import pull

    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        for number in range(4):
            path = data / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([number]))
        pull(sources.FolderSource(data), Path(place) / "out")
        return {name: (Path(place) / "out" / name).read_bytes() for name in ("manifest.parquet", "manifest.packed")}


def _arrow(kind: str) -> bytes:
    import pyarrow as pa
    from pyarrow import feather, parquet

    table = pa.table({"file": ["a.png", "b.png"], "label": [["x"], ["y", "x"]], "n": [1, None]})
    file = io.BytesIO()
    parquet.write_table(table, file) if kind == "parquet" else feather.write_feather(table, file)
    return file.getvalue()


def _safetensors() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, {"visionadapt": '{"epoch": 1, "x": [1, 2]}'})


@cache
def parsers() -> dict[str, Parser]:
    """Every parser by name."""
    from visionadapt.frozen.plan import Plan

    plan = Plan(
        "net", "00", 32, 1, 2, 3, True, "eager", 0, "float32", "float32", "cpu", 1, 32, 8, {"torch": "2"}, {"s": 1.0}
    )
    steps = [
        {"step": "DecodeAdapter", "max_pixels": 1000, "icc": "convert"},
        {"step": "ResizeAdapter", "size": 32, "policy": "squash"},
        {"step": "NormalizeAdapter", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    ]
    facts = {"backbone": "n", "weights_hash": "0", "adapter": "none", "weights": "none", "task": "single"}
    facts |= {"image_size": 32, "seed": 0, "classes": ["a", "b"], "preprocessing": steps}
    calibration = {"temperature": 1.5, "threshold": 0.5, "wanted_precision": 0.95}
    calibration |= {"pictures": 10, "answered": 9, "right": 8}
    run = {
        "config.json": {"format": 1, "options": {"backbone": "n", "adapter": "none"}, "settings": {"epochs": 3}},
        "summary.json": {"val_accuracy": 0.5, "seconds": {"train": 1.0}, "best_epoch": 1},
        "metrics.jsonl": {"epoch": 1, "val_accuracy": 0.5, "seconds": 1.0},
    }
    adapters = (b"lora(rank=8, blocks=last:6)", b"bottleneck(rank=16, blocks=last:66%)", b"vpt(tokens=5)", b"none")
    adapters += (b"mixed(a=lora(rank=2), b=ssf())", b"dora(rank=4, dropout=0.1, alpha=16.0)", b'lora(where="*.fc1")')
    sources = (
        b"csv(labels.csv, image=file, label=label, drop=[a, 'b c'], rename={x: y})",
        b"folder(photos, group='(.*)-')",
    )
    sources += (
        b"sql(sqlite:///a.db, query='SELECT 1', image=a)",
        b"api(https://a/b, image=url, rows=data.items, page=p)",
    )
    table = b'file,label,group\na.png,cat,1\n"b,c.png",dog,\n../x.png,,3\nhttp://a/b.png,cat|dog,4\n'
    rows = [{"file": "a.png", "label": "x", "a": {"b": 1}}, {"file": "b.png", "label": ["y"], "a": None}]
    lines = "\n".join(json.dumps(row) for row in rows)
    answer = {"data": {"items": rows, "next": "2"}, "more": True}
    toml = b'epochs = 5\nbackbone = "net"\nlearning_rate = 1e-3\n[data.csv]\npath = "a.csv"\nimage = "file"\n'
    toml += b"[adapter.lora]\nrank = 8\n"

    def text(value: Any) -> bytes:
        return json.dumps(value).encode()

    return {
        "adapter": Parser(adapters, _spec("adapter"), 40),
        "source": Parser(sources, _spec("source"), 20),
        "csv": Parser((table, table.replace(b",", b";"), table.decode().encode("utf-16")), _table(".csv"), 0.6),
        "json": Parser((text(rows), text({"rows": rows})), _table(".json"), 0.6),
        "jsonl": Parser((lines.encode(),), _table(".jsonl"), 0.6),
        "parquet": Parser((_arrow("parquet"),), _table(".parquet"), 0.15),
        "arrow": Parser((_arrow("arrow"),), _table(".arrow"), 0.15),
        "manifest": Parser((_pulled()["manifest.parquet"],), _packed("manifest.parquet"), 0.15),
        "packed": Parser((_pulled()["manifest.packed"],), _packed("manifest.packed"), 0.1),
        "answer": Parser((text(answer),), _listing, 20),
        "answer values": Parser((text(answer),), _listing, 4, structured=True),
        "toml": Parser((toml,), _toml, 0.05),
        "plan": Parser((text(plan.to_json()),), _plan, 8, structured=True),
        "steps": Parser((text(steps),), _steps, 8, structured=True),
        "calibration": Parser((text(calibration),), _calibration, 0.5, structured=True),
        "facts": Parser((text(facts),), _facts, 0.1, structured=True),
        "tensors": Parser((_safetensors(),), _tensors, 0.4),
        "overview": Parser((text(run),), _overview, 0.1, structured=True),
        "edits": Parser((b"file,label,action\na,x,drop\nb,,\nc,y,relabel\n",), _edits, 0.5),
        "words": Parser((b"20GB", b"5%", b"sqlite:///a.db", b"postgresql://u:p@h/d?x=1"), _words, 20),
    }


def fuzz(name: str, count: int, seed: int, folder: Path) -> Iterator[str]:
    """Yield a description of each input of a parser that ends in something else than a value or a line."""
    parser, draw = parsers()[name], random.Random(f"{name} {seed}")
    values = hostile_values(folder / "outside")
    signal.signal(signal.SIGALRM, _too_long)
    for _ in range(count):
        data = mutated(parser, draw, values)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        try:
            parser.parse(data, folder)
        except VisionAdaptError:
            continue
        except Exception as error:  # noqa: BLE001 - what is looked for
            if _is_no_json(parser, error):
                continue
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            yield f"{name}: {type(error).__name__}: {str(error)[:200]} at {place} for {data[:400]!r}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _is_no_json(parser: Parser, error: Exception) -> bool:
    """Whether an input of a parser of JSON values was none, which the reader of the file refuses."""
    return parser.structured and isinstance(error, (json.JSONDecodeError, UnicodeError, RecursionError))


def counts(total: int, names: Sequence[str]) -> dict[str, int]:
    """Divide a number of inputs among parsers."""
    shares = {name: parsers()[name].share for name in names}
    return {name: round(total * share / sum(shares.values())) for name, share in shares.items()}


def main(total: int, seed: int, names: Sequence[str]) -> int:
    """Fuzz, print what is found, and return how many inputs failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        for name, count in counts(total, names or list(parsers())).items():
            folder, started = Path(place) / name.replace(" ", "-"), time.monotonic()
            folder.mkdir()
            found = list(fuzz(name, count, seed, folder))
            failed += len(found)
            for line in found[:20]:
                print(line)  # noqa: T201
            seconds = time.monotonic() - started
            print(f"{name}: {count:,} inputs in {seconds:.1f} s, {len(found)} failed", flush=True)  # noqa: T201
    return failed


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"more than {_SECONDS} s")


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    sys.exit(min(main(int(sys.argv[1]), seed, sys.argv[3:]), 1))
