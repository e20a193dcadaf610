"""What the pass over all rows finds out depends on no other row, process or run, and a changed file is told."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.core.records import Manifest
from visionadapt.data.dataset import Finding
from visionadapt.errors import SourceError
from visionadapt.frozen.cache.index import Identities, KnownBefore
from visionadapt.frozen.cache.store import FeatureCache
from visionadapt.frozen.features import Features, compute_features
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import make_plan
from visionadapt.images import Augmentation
from visionadapt.model.classifier import Classifier

from ..conftest import tinted

Make = Callable[..., Path]


def features_of(
    folder: Path,
    cache: Path,
    keep: str = "auto",
    workers: int = 0,
    augment: Augmentation | None = None,
    findings: Sequence[Finding] | None = None,
) -> Features:
    rows = sources.FolderSource(folder)
    frozen = FrozenPart(va.classifier("test_efficientnet", rows.classes, None, "none", image_size=64))
    settings = va.TrainingSettings(keep=keep, device="cpu", precision="float32", augment="light", workers=workers)  # type: ignore[arg-type]
    pipeline = Pipeline(frozen, va.preprocessing_for(frozen.model), make_plan(frozen, settings))
    return compute_features(pipeline, Manifest(rows, rows), settings, cache, augment=augment, findings=findings)


def turned(path: Path) -> None:
    """A picture with an EXIF orientation, which is a repair."""
    picture = tinted((60, 80), 0, 1)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_copy_of_a_repaired_picture_is_repaired_too(tinted_folder: Make, tmp_path: Path, workers: int) -> None:
    folder = tinted_folder(count=40)
    turned(folder / "blood" / "a.jpg")
    shutil.copy(folder / "blood" / "a.jpg", folder / "grass" / "z.jpg")
    for run in range(2):
        found = features_of(folder, tmp_path / "cache", workers=workers)
        repaired = [found.manifest.key(finding.index) for finding in found.findings if finding.repairs]
        assert repaired == ["blood/a.jpg", "grass/z.jpg"], run


def test_what_another_process_keeps_meanwhile_is_not_taken_without_its_remarks(tmp_path: Path) -> None:
    rows = Identities(tmp_path / "ids.bin")
    first, second = bytes(32), bytes([1]) * 32
    rows.add([first])
    known = KnownBefore(rows, len(rows))
    rows.add([second])
    assert (first in known, second in known, second in rows, None in known) == (True, False, True, False)


def test_remarks_are_kept_once(tinted_folder: Make, tmp_path: Path) -> None:
    folder = tinted_folder()
    turned(folder / "blood" / "a.jpg")
    (folder / "grass" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    sizes = []
    for _ in range(3):
        found = features_of(folder, tmp_path)
        assert sum(bool(finding.repairs or finding.problem) for finding in found.findings) == 2
        sizes.append([path.stat().st_size for path in tmp_path.glob("*/remarks.jsonl")])
    assert sizes[0] == sizes[1] == sizes[2]
    assert len(sizes[0]) == 1


def test_what_this_machine_lacks_is_tried_again(
    tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pillow_heif

    folder = tinted_folder()
    pillow_heif.register_heif_opener()
    tinted((64, 64), 0, 5).save(folder / "blood" / "phone.heic")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        (rejected,) = (finding for finding in features_of(folder, tmp_path).findings if finding.problem)
        assert "needs pillow_heif" in str(rejected.problem)
    found = features_of(folder, tmp_path)
    assert (len(found), found.computed) == (21, 1), "what needs no such library is not computed again"


@pytest.mark.slow
def test_another_decoder_of_one_format_is_no_reason_to_compute_the_others_again(
    tinted_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pillow_heif

    folder = tinted_folder()
    pillow_heif.register_heif_opener()
    tinted((64, 64), 0, 5).save(folder / "blood" / "phone.jpg", format="HEIF")
    assert [features_of(folder, tmp_path).computed for _ in range(2)] == [21, 0]
    before = features_of(folder, tmp_path).findings
    monkeypatch.setattr("visionadapt.images.formats._installed", lambda library: f"{library} 99.0")
    found = features_of(folder, tmp_path)
    assert found.computed == 1
    differing = [new.decoder for old, new in zip(before, found.findings, strict=True) if old != new]
    assert differing == ["pillow-heif 99.0"]
    assert features_of(folder, tmp_path, findings=before).findings == before, "a resumed run finds what it began with"


@pytest.mark.parametrize("keep", ["features", "nothing"])
def test_a_file_that_changes_during_a_run_is_told(tinted_folder: Make, tmp_path: Path, keep: str) -> None:
    folder = tinted_folder()
    found = features_of(folder, tmp_path / "cache", keep)
    before = found.batch([0, 1])["x"]
    tinted((60, 80), 2, 99).save(folder / "blood" / "0.png")
    if keep == "features":
        assert torch.equal(found.batch([0, 1])["x"], before)
        return
    with pytest.raises(SourceError, match=r"blood/0\.png has changed since the run began; restore it"):
        found.batch([0, 1])
    (folder / "blood" / "0.png").unlink()
    with pytest.raises(SourceError, match=r"blood/0\.png has changed since the run began \(.*No such file"):
        found.batch([0, 1])


@pytest.mark.slow
def test_a_pipeline_of_one_s_own_draws_the_same_whatever_is_kept(tinted_folder: Make, tmp_path: Path) -> None:
    import albumentations

    pipeline = albumentations.Compose([albumentations.RandomBrightnessContrast(0.9, 0.9, p=1.0)])
    augment, folder = Augmentation(pipeline), tinted_folder()
    kept = features_of(folder, tmp_path / "cache", augment=augment)
    anew = features_of(folder, tmp_path / "cache", "nothing", augment=augment)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for view in range(4):
            rows, views = list(range(20)), [view] * 20
            pairs = zip(anew.batch(rows, views)["x"], kept.batch(rows, views)["x"], strict=True)
            assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in pairs)
    finally:
        torch.set_num_threads(before)


def test_a_newer_version_finds_nothing_of_an_older_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model: Classifier = va.classifier("test_efficientnet", ("a", "b"), None, "none", image_size=64)
    frozen = FrozenPart(model)
    plan = make_plan(frozen, va.TrainingSettings(device="cpu"))
    pipeline = Pipeline(frozen, va.preprocessing_for(model), plan)
    spaces = {FeatureCache(tmp_path, pipeline.description()).folder for _ in range(2)}
    monkeypatch.setattr("visionadapt.frozen.pipeline.__version__", "99.0")
    spaces.add(FeatureCache(tmp_path, pipeline.description()).folder)
    assert len(spaces) == 2
