"""Batches: what a row becomes, the same in every process and every epoch."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from visionadapt.core.records import Manifest, Record
from visionadapt.data.dataset import PLAIN, ImageDataset
from visionadapt.data.loading import choose_workers, loader, samples
from visionadapt.data.order import Shuffle
from visionadapt.errors import UsageError
from visionadapt.images import Augmentation, NormalizeAdapter, ResizeAdapter, compose, seed_for
from visionadapt.sources import FileSource, FolderSource
from visionadapt.sources.opening import manifest_of

PREPARE = compose(ResizeAdapter(32, policy="squash"), NormalizeAdapter(mean=0.5, std=0.5))
BROKEN = {
    "a/2.png": "truncated or corrupt",
    "b/empty.png": "is empty (0 bytes)",
    "b/pipe": "is a named pipe, not a regular file",
    "stray.png": "is outside of all class folders",
}


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (30 + number, 50 - number, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six whole pictures in all, and four rows that cannot be used."""
    for number in range(6):
        path = tmp_path / "ab"[number % 2] / f"{10 * number}.png"
        path.parent.mkdir(exist_ok=True)
        picture(number).save(path)
    whole = io.BytesIO()
    picture(9).save(whole, "PNG")
    (tmp_path / "a" / "2.png").write_bytes(whole.getvalue()[:900])
    (tmp_path / "b" / "empty.png").touch()
    os.mkfifo(tmp_path / "b" / "pipe")
    picture(8).save(tmp_path / "stray.png")
    return tmp_path


def all_batches(rows: Any, epoch: int = 0, normalize: bool = False, **options: Any) -> dict[str, Any]:
    batches: Any = loader(rows, PREPARE, normalize=normalize, **options)
    batches.sampler.set_epoch(epoch)
    batches = list(batches)
    return {
        "image": torch.cat([batch["image"] for batch in batches]),
        "label": torch.cat([batch["label"] for batch in batches]),
        "key": [key for batch in batches for key in batch["key"]],
        "rejected": dict(pair for batch in batches for pair in batch["rejected"]),
    }


def test_a_batch(folder: Path) -> None:
    first, *others = loader(FolderSource(folder), PREPARE, batch_size=4, normalize=False)
    assert sorted(first) == ["image", "key", "label", "rejected"]
    assert first["key"] == ["a/0.png", "a/20.png", "a/40.png"]
    assert first["image"].dtype == torch.uint8 and first["image"].shape == (3, 3, 32, 32)
    assert first["label"].dtype == torch.int64 and first["label"].tolist() == [0, 0, 0]
    assert [key for key, _ in first["rejected"]] == ["a/2.png"]
    assert PREPARE.device(first["image"]).dtype == torch.float32
    assert [len(batch["key"]) + len(batch["rejected"]) for batch in others] == [4, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_normalised_unless_asked_otherwise(folder: Path, workers: int) -> None:
    expected = PREPARE.device(all_batches(FolderSource(folder))["image"])
    (batch,) = loader(FolderSource(folder), PREPARE, workers=workers)
    assert batch["image"].dtype == torch.float32
    assert torch.equal(batch["image"], expected)


def test_without_a_normalize_adapter_uint8_must_be_asked_for(folder: Path) -> None:
    prepare = compose(ResizeAdapter(32, policy="squash"))
    with pytest.raises(UsageError, match=r"NormalizeAdapter.*normalize=False"):
        loader(FolderSource(folder), prepare)
    (batch,) = loader(FolderSource(folder), prepare, normalize=False)
    assert torch.equal(batch["image"], all_batches(FolderSource(folder))["image"])


def test_every_pass_is_the_next_epoch(folder: Path) -> None:
    options: dict[str, Any] = {"augment": "light", "shuffle": True, "seed": 3}
    every = [all_batches(FolderSource(folder), epoch, **options) for epoch in range(3)]
    assert len({tuple(epoch["key"]) for epoch in every}) == 3
    batches: Any = loader(FolderSource(folder), PREPARE, normalize=False, **options)
    for epoch in (0, 1, 2):
        (batch,) = batches
        assert batch["key"] == every[epoch]["key"]
        assert torch.equal(batch["image"], every[epoch]["image"])
    batches.sampler.set_epoch(1)
    (batch,) = batches
    assert torch.equal(batch["image"], every[1]["image"])


def test_all_splits_of_a_multi_label_source_have_labels_of_one_kind(folder: Path) -> None:
    records = [Record("a/0.png", ("a", "b")), Record("a/20.png", ("a",)), Record("b/10.png", ("b",))]
    manifest = Manifest(FolderSource(folder), records)
    for rows, labels in (([0, 1], [[1.0, 1.0], [1.0, 0.0]]), ([1, 2], [[1.0, 0.0], [0.0, 1.0]])):
        assert all_batches(manifest.select(rows))["label"].tolist() == labels


def test_what_cannot_be_used_is_told_and_everything_else_is_there(folder: Path) -> None:
    found = all_batches(FolderSource(folder), batch_size=3)
    assert found["key"] == ["a/0.png", "a/20.png", "a/40.png", "b/10.png", "b/30.png", "b/50.png"]
    assert found["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert found["rejected"].keys() == BROKEN.keys()
    assert all(found["rejected"][key].startswith(reason) for key, reason in BROKEN.items())
    for key, pixels in zip(found["key"], found["image"], strict=True):
        assert torch.equal(pixels, PREPARE.host(folder / key))


def test_a_batch_of_which_nothing_can_be_used(folder: Path) -> None:
    manifest = manifest_of(FolderSource(folder)).where(lambda record: record.key in BROKEN)
    for normalize, dtype in ((False, torch.uint8), (True, torch.float32)):
        (batch,) = loader(manifest, PREPARE, normalize=normalize)
        assert batch["image"].shape == (0, 3, 32, 32) and batch["image"].dtype == dtype
    assert batch["label"].shape == (0,) and batch["label"].dtype == torch.int64
    assert batch["key"] == [] and len(batch["rejected"]) == 4


def test_unlabelled_rows_have_the_label_minus_one(folder: Path) -> None:
    found = all_batches(FileSource(folder / "a"))
    assert found["label"].tolist() == [-1, -1, -1]


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["none", "light"])
def test_workers_change_nothing(folder: Path, augment: str) -> None:
    found = [all_batches(FolderSource(folder), batch_size=2, augment=augment, workers=n, shuffle=True) for n in (0, 2)]
    assert torch.equal(found[0]["image"], found[1]["image"])
    assert found[0]["key"] == found[1]["key"]
    assert found[0]["rejected"] == found[1]["rejected"]
    assert torch.equal(found[0]["label"], found[1]["label"])


def test_an_epoch_is_a_permutation_of_its_own(folder: Path) -> None:
    assert sorted(Shuffle(100, 0, 0)) == list(range(100))
    assert list(Shuffle(100, 0, 0)) == list(Shuffle(100, 0, 0))
    orders = [Shuffle(100, seed, epoch) for seed in range(2) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 6
    assert list(Shuffle(8, 0, 0)) == [1, 2, 0, 7, 4, 6, 3, 5]
    assert list(Shuffle(0, 0, 0)) == []
    manifest = manifest_of(FolderSource(folder)).where(lambda record: record.key not in BROKEN)
    found = all_batches(manifest, shuffle=True, seed=3, epoch=2, batch_size=4)
    assert found["key"] == [manifest.key(index) for index in Shuffle(6, 3, 2)]


def views_of(manifest: Manifest, index: int, views: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    pixels = ImageDataset(manifest, PREPARE, Augmentation("light"), views, seed)[index].pixels
    assert pixels is not None
    return pixels


def test_a_view_depends_on_seed_view_and_key_alone(folder: Path) -> None:
    manifest = manifest_of(FolderSource(folder)).where(lambda record: record.key not in BROKEN)
    one, two, three = views_of(manifest, 1, (PLAIN, 1, 2))
    assert torch.equal(one, PREPARE.host(folder / manifest.key(1)))
    assert not torch.equal(one, two) and not torch.equal(two, three)
    torch.manual_seed(5)
    assert torch.equal(views_of(manifest.select([4, 1]), 1, (2,))[0], three)
    assert not torch.equal(views_of(manifest, 1, (2,), seed=1)[0], three)
    decoded = PREPARE.decode.decode(manifest.read(1)).pixels
    expected = PREPARE.after_decode(Augmentation("light")(decoded, seed_for(0, 2, manifest.key(1))))
    assert torch.equal(three, expected)
    found = all_batches(manifest, augment="light", epoch=1, shuffle=True)
    assert torch.equal(found["image"][found["key"].index(manifest.key(1))], three)


def test_equal_pictures_share_a_plain_identity_and_no_augmented_one(folder: Path) -> None:
    (folder / "a" / "copy.png").write_bytes((folder / "a" / "0.png").read_bytes())
    manifest = manifest_of(FolderSource(folder))
    keys = [manifest.key(index) for index in range(len(manifest))]
    dataset = ImageDataset(manifest, PREPARE, Augmentation("light"), (PLAIN, 1, 2))
    first, copy = dataset[keys.index("a/0.png")], dataset[keys.index("a/copy.png")]
    assert first.identities[0] == copy.identities[0]
    assert len({*first.identities, *copy.identities}) == 5
    assert all(len(identity) == 32 for identity in first.identities)
    assert dataset.identities(first.finding) == first.identities
    others = ImageDataset(manifest, PREPARE, Augmentation("strong"), (PLAIN, 1, 2))[keys.index("a/0.png")]
    assert others.identities[0] == first.identities[0] and others.identities[1] != first.identities[1]


def test_known_views_are_not_made_again(folder: Path) -> None:
    manifest = manifest_of(FolderSource(folder))
    whole = ImageDataset(manifest, PREPARE, Augmentation("light"), (1, 2, 3))[0]
    known = frozenset(whole.identities[:2])
    left = ImageDataset(manifest, PREPARE, Augmentation("light"), (1, 2, 3), known=known)[0]
    assert left.views == (3,) and left.identities == whole.identities[2:]
    assert left.pixels is not None and whole.pixels is not None
    assert torch.equal(left.pixels[0], whole.pixels[2])
    assert left.finding == whole.finding


def test_findings_hold_the_hash_of_the_bytes(folder: Path) -> None:
    manifest = manifest_of(FolderSource(folder))
    dataset = ImageDataset(manifest, PREPARE, Augmentation("none"))
    for workers in (0, 1):
        found = {manifest.key(sample.finding.index): sample.finding for sample in samples(dataset, workers)}
        assert list(found) == [manifest.key(index) for index in range(len(manifest))]
        for key in ("a/0.png", "a/2.png"):
            assert found[key].sha256 == hashlib.sha256((folder / key).read_bytes()).hexdigest()
        assert found["b/pipe"].sha256 == ""
        assert {key for key, finding in found.items() if finding.problem} == set(BROKEN)
    assert [sample.finding.index for sample in samples(dataset, 0, [5, 0])] == [5, 0]


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 0), (4, 2), (64, 8)])
def test_how_many_processes_read(monkeypatch: pytest.MonkeyPatch, cores: int, expected: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert [choose_workers(wanted, 10**6) for wanted in (0, 3)] == [0, 3]
    assert choose_workers(-1, 255) == 0
    with pytest.raises(UsageError, match="--workers -2"):
        choose_workers(-2, 10)
    assert choose_workers(-1, 256) == expected
