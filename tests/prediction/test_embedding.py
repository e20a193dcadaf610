"""Vectors of many images: the features of `Predictor`, from the cache where they are, in every kind of file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import visionadapt as va
from visionadapt.errors import RunError, UsageError
from visionadapt.frozen.cache.eviction import spaces
from visionadapt.prediction.calibration import Calibration
from visionadapt.prediction.distance import fit_distance
from visionadapt.prediction.embedding import SUFFIXES, Embedding, embed, embed_into, read_embedding, write_embedding
from visionadapt.sources import FileSource
from visionadapt.sources.opening import manifest_of

from ..conftest import SMALL_BACKBONE, tinted

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = va.classifier(SMALL_BACKBONE, ("blood", "grass"), "bottleneck(rank=2, blocks=last:1)", "none", 32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    features = torch.randn(20, model.backbone.num_features, generator=generator)
    calibration = Calibration(distance=fit_distance(features, torch.arange(20) % 2, 2))
    return va.save(tmp_path_factory.mktemp("runs") / "run", model, va.preprocessing_for(model), calibration=calibration)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        tinted((40, 30), number, number).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_is_written_is_read(suffix: str, precision: str, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 7)).astype(precision)
    written = Embedding(("a", "dir/é", "c"), vectors, np.array([0.5, np.nan, 2], np.float32), {"backbone": "net"})
    write_embedding(tmp_path / f"f{suffix}", written)
    found = read_embedding(tmp_path / f"f{suffix}")
    assert found.keys == written.keys and found.facts == written.facts
    assert found.vectors.dtype == precision and np.array_equal(found.vectors, vectors)
    assert np.array_equal(found.distances, written.distances, equal_nan=True)
    (tmp_path / f"f{suffix}").write_bytes(b"something else")
    with pytest.raises(RunError):
        read_embedding(tmp_path / f"f{suffix}")
    with pytest.raises(UsageError):
        write_embedding(tmp_path / "f.csv", written)


def test_vectors_of_a_run_are_its_features(visionadapt: Run, run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    code, output = visionadapt("embed", photos, "--run", run, "--out", out, "--json", "--quiet")
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    assert (told["event"], told["rows"], told["rejected"]) == ("embedding", 5, 1)
    table, predictor = parquet.read_table(out), va.load(run)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), predictor.classifier.backbone.num_features)
    keys = table.column("key").to_pylist()
    assert keys == [f"{number}.png" for number in range(5)]
    vectors = np.array(table.column("vector").to_pylist(), np.float32)
    assert np.abs(vectors - predictor.features([photos / key for key in keys])).max() < 1e-5
    distances = [predictor.predict(photos / key).distance for key in keys]
    assert np.allclose(table.column("distance").to_pylist(), distances, rtol=1e-4)


def test_vectors_written_part_by_part_are_those_of_all(run: Path, photos: Path, tmp_path: Path) -> None:
    predictor, rows, told = va.load(run), manifest_of(FileSource(photos)), list[tuple[int, int]]()
    whole, rejected = embed(predictor.pipeline, rows, tmp_path / "one", calibration=predictor.calibration)
    for count in (1, 4, 6):
        found = embed_into(
            tmp_path / "f.parquet",
            predictor.pipeline,
            rows,
            tmp_path / str(count),
            calibration=predictor.calibration,
            rows_at_once=count,
            progress=lambda done, total: told.append((done, total)),
        )
        assert found == (5, rejected)
        read = read_embedding(tmp_path / "f.parquet")
        assert (read.keys, read.facts) == (whole.keys, whole.facts)
        np.testing.assert_allclose(read.vectors, whole.vectors, atol=1e-5)
        np.testing.assert_allclose(read.distances, whole.distances, rtol=1e-4)
        assert told[-1] == (6, 6)


def test_a_second_time_reads_the_cache(visionadapt: Run, photos: Path, tmp_path: Path, own_cache: Path) -> None:
    words = ("embed", photos, "--backbone", SMALL_BACKBONE, "--weights", "none")
    assert visionadapt(*words, "--out", tmp_path / "a.npz")[0] == 0
    (space,) = spaces(own_cache)
    stamps = {path: path.stat().st_size for path in space.folder.iterdir()}
    assert visionadapt(*words, "--out", tmp_path / "b.npz")[0] == 0
    assert {path: path.stat().st_size for path in space.folder.iterdir()} == stamps
    first, second = (read_embedding(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert np.array_equal(first.vectors, second.vectors) and np.isnan(first.distances).all()


def test_the_nearest_image_is_itself(visionadapt: Run, run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.safetensors"
    assert visionadapt("embed", photos, "--run", run, "--out", out, "--precision", "float16")[0] == 0
    code, output = visionadapt("search", out, photos / "3.png", "--run", run, "--top", 2)
    assert code == 0, output
    lines = output.splitlines()
    assert lines[0] == "1.0000  3.png" and len(lines) == 2
    code, output = visionadapt("search", out, photos / "3.png")
    assert code == 2 and "--run" in output


def test_images_of_two_files_are_paired(visionadapt: Run, tmp_path: Path) -> None:
    vectors = np.array([[1, 0], [0, 1], [3, 3]], np.float32)
    one = Embedding(("a", "b", "c"), vectors, np.zeros(3, np.float32), {"backbone": "net"})
    two = Embedding(("x", "y"), np.array([[2, 0], [1, 2]], np.float32), np.zeros(2, np.float32), {"backbone": "net"})
    assert [pair[:2] for pair in one.pairs(two, 0.9)] == [("a", "x"), ("c", "y")]
    with pytest.raises(UsageError, match="backbone"):
        one.pairs(Embedding(("x",), vectors[:1], np.zeros(1, np.float32), {"backbone": "other"}), 0.9)
    for name, embedding in (("one.npz", one), ("two.npz", two)):
        write_embedding(tmp_path / name, embedding)
    code, output = visionadapt("search", tmp_path / "one.npz", tmp_path / "two.npz", "--least", "0.9")
    assert (code, output) == (0, "1.0000  a  x\n0.9487  c  y\n")
    code, output = visionadapt("search", tmp_path / "one.npz", tmp_path / "one.npz", "--least", "0.7")
    assert (code, output) == (0, "0.7071  a  c\n0.7071  b  c\n"), "no image is a copy of itself"


def test_similarity_is_the_cosine() -> None:
    vectors = np.array([[1, 0], [1, 1], [-2, 0]], np.float32)
    found = Embedding(("a", "b", "c"), vectors, np.zeros(3, np.float32)).nearest(np.array([5.0, 0.0]), 3)
    assert [key for key, _ in found] == ["a", "b", "c"]
    assert np.allclose([value for _, value in found], [1, 0.5**0.5, -1])
