"""Every kind of finding is planted into synthetic images and found; clean images have none."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from visionadapt import auditing, sources, split
from visionadapt.auditing import AuditSettings
from visionadapt.auditing.near_duplicates import CONFIRMED
from visionadapt.errors import SourceError

from .scenes import SMALL, audited, clean_folder, found_pairs, scene

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return clean_folder(tmp_path / "data")


def test_clean_images_have_no_findings(folder: Path) -> None:
    audit = audited(folder)
    assert audit.findings == ()
    assert (audit.usable, audit.errors, audit.wrong_labels) == (56, 0, 0)
    assert audit.probe_accuracy == 1.0
    assert audit.split_origin == "as in the source"
    assert audit.statistics.classes["red"] == {"train": 14, "val": 14}
    assert audit.statistics.forms == {"PNG": 56}


def test_copies_within_a_split_are_notes(folder: Path) -> None:
    shutil.copy(folder / "train/red/3.png", folder / "train/red/copy.png")
    with Image.open(folder / "train/red/4.png") as image:
        image.save(folder / "train/red/other_file.bmp")
        near = ImageEnhance.Brightness(image.crop((2, 2, image.width - 1, image.height - 2))).enhance(1.1)
        near.resize((130, 150)).save(folder / "train/red/near.jpg", quality=70)
    audit = audited(folder)
    assert found_pairs(audit, "exact_duplicate") == [("train/red/copy.png", "train/red/3.png")]
    assert found_pairs(audit, "same_pixels") == [("train/red/other_file.bmp", "train/red/4.png")]
    assert {frozenset(pair) for pair in found_pairs(audit, "near_duplicate")} <= {
        frozenset({"train/red/near.jpg", other}) for other in ("train/red/4.png", "train/red/other_file.bmp")
    }
    assert len(found_pairs(audit, "near_duplicate")) >= 1
    assert audit.errors == 0
    assert not {finding.severity for finding in audit.findings} & {"error", "warning"}


def test_a_copy_in_another_split_is_a_leak(folder: Path) -> None:
    shutil.copy(folder / "train/red/3.png", folder / "val/red/copy.png")
    with Image.open(folder / "train/blue/4.png") as image:
        image.resize((90, 100)).save(folder / "val/blue/near.jpg", quality=80)
    audit = audited(folder)
    assert found_pairs(audit, "leak") == [
        ("val/red/copy.png", "train/red/3.png"),
        ("val/blue/near.jpg", "train/blue/4.png"),
    ]
    assert audit.errors == 2
    exact, near = (finding for finding in audit.findings if finding.kind == "leak")
    assert exact.score == 1.0
    assert near.score is not None
    assert CONFIRMED <= near.score < 1
    assert f"{100 * near.score:.0f} %" in near.detail
    assert "one in val, one in train" in exact.detail


def test_a_mirrored_copy_is_found(folder: Path) -> None:
    with Image.open(folder / "train/red/4.png") as image:
        ImageOps.mirror(image.crop((2, 1, image.width - 2, image.height))).save(folder / "val/red/m.jpg", quality=85)
    audit = audited(folder)
    assert found_pairs(audit, "leak") == [("val/red/m.jpg", "train/red/4.png")]
    assert "mirrored" in audit.findings[0].detail


def test_two_photographs_of_one_scene_are_no_copies(folder: Path) -> None:
    with Image.open(folder / "train/red/4.png") as image:
        pixels = np.asarray(image.resize((96, 96))).astype(np.float32)
    other = np.random.default_rng(0).normal(0, 30, (24, 24, 1)).repeat(4, axis=0).repeat(4, axis=1)
    Image.fromarray(np.clip(pixels + other, 0, 255).astype(np.uint8)).save(folder / "val/red/again.png")
    assert audited(folder).errors == 0


def test_rows_without_split_are_split_as_in_training(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "data", ("",))
    held_out = next(name for name in sorted(validated(folder)) if name.startswith("red/"))
    copies = [folder / "red" / f"copy{number}.png" for number in range(6)]
    for copy in copies:
        shutil.copy(folder / held_out, copy)
    audit = audited(folder)
    assert audit.split_origin == "as train --val 0.2 --seed 0 splits them"
    own = validated(folder)
    both = {held_out, *(f"red/{copy.name}" for copy in copies)}
    assert both & own
    assert both - own
    assert {row[0] for row in found_pairs(audit, "leak")} == both & own


def validated(folder: Path) -> set[str]:
    """Keys of the rows in the validation split of a training."""
    return {record.key for record in split(sources.FolderSource(folder), 0.2, 0)[1]}


def test_copies_with_different_labels_are_a_conflict(folder: Path) -> None:
    shutil.copy(folder / "train/red/3.png", folder / "train/blue/copy.png")
    audit = audited(folder)
    assert {frozenset(pair) for pair in found_pairs(audit, "conflict")} == {
        frozenset({"train/blue/copy.png", "train/red/3.png"})
    }
    finding = next(finding for finding in audit.findings if finding.kind == "conflict")
    assert "labelled 'red' and 'blue'" in finding.detail
    assert finding.label == "red"


def test_of_three_copies_the_one_that_differs_is_reported(folder: Path) -> None:
    shutil.copy(folder / "train/red/3.png", folder / "train/red/copy.png")
    shutil.copy(folder / "train/red/3.png", folder / "train/blue/copy.png")
    assert found_pairs(audited(folder), "conflict") == [("train/blue/copy.png", "train/red/3.png")]


def test_mislabelled_images_are_listed_first(folder: Path) -> None:
    scene("red", 901).save(folder / "train/blue/a.png")
    scene("blue", 902).save(folder / "val/red/b.png")
    audit = audited(folder)
    assert {row[0] for row in found_pairs(audit, "label_error")[:2]} == {"train/blue/a.png", "val/red/b.png"}
    assert 2 <= audit.wrong_labels <= 4
    first = next(finding for finding in audit.findings if finding.kind == "label_error")
    assert "'red'" in first.detail and "%" not in first.detail


def test_a_copy_does_not_vouch_for_a_wrong_label(folder: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        scene("red", 901).save(folder / "train/blue" / name)
    assert {row[0] for row in found_pairs(audited(folder), "label_error")[:3]} == {
        f"train/blue/{name}.png" for name in "abc"
    }


def test_broken_and_unusual_files(folder: Path) -> None:
    red = folder / "train/red"
    (red / "empty.png").write_bytes(b"")
    (red / "page.jpg").write_bytes(b"<!doctype html><html></html>")
    whole = (red / "3.png").read_bytes()
    (red / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (100, 100), (200, 10, 10)).save(red / "blank.png")
    scene("red", 950).save(folder / "really_a.bmp")
    (folder / "really_a.bmp").rename(red / "named.jpg")
    scene("red", 951).resize((60, 30)).save(red / "small.png")
    scene("red", 952).resize((400, 100)).save(red / "long.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    scene("red", 953).save(red / "turned.jpg", exif=turned)
    Image.fromarray(np.asarray(scene("red", 954)).max(axis=2)).save(red / "grey.png")
    audit = audited(folder)
    assert found_pairs(audit, "empty") == [("train/red/empty.png",)]
    assert found_pairs(audit, "unreadable") == [("train/red/half.png",), ("train/red/page.jpg",)]
    assert found_pairs(audit, "blank") == [("train/red/blank.png",)]
    assert found_pairs(audit, "wrong_extension") == [("train/red/named.jpg",)]
    assert found_pairs(audit, "small") == [("train/red/small.png",)]
    assert found_pairs(audit, "elongated") == [("train/red/long.png",)]
    assert found_pairs(audit, "repaired") == [("train/red/turned.jpg",)]
    assert found_pairs(audit, "rare_mode") == [("train/red/grey.png",)]
    details = {finding.file: finding.detail for finding in audit.findings}
    assert details["train/red/named.jpg"] == "named like JPEG, but is BMP"
    assert "HTML" in details["train/red/page.jpg"]


def test_uneven_classes(folder: Path) -> None:
    (folder / "train/green").mkdir()
    for number in range(4):
        scene("red", 970 + number).save(folder / f"train/green/{number}.png")
    audit = audited(folder)
    assert found_pairs(audit, "few_pictures") == [("green",)]
    assert found_pairs(audit, "imbalance") in ([("green", "blue")], [("green", "red")])
    assert "green" not in {finding.label for finding in audit.findings if finding.kind == "label_error"}


def test_what_the_source_tells(folder: Path) -> None:
    (folder / "train").rename(folder / "Training")
    (folder / "Training/red/0.txt").write_text("a box")
    details = [finding.detail for finding in audited(folder).findings if finding.kind == "source"]
    assert len(details) == 2 and "Training is train" in details[0] and "1 .txt" in details[1]


def test_one_class_under_two_names(folder: Path) -> None:
    (folder / "train/Red").mkdir()
    for number in range(12):
        scene("red", 980 + number).save(folder / f"train/Red/{number}.png")
    assert found_pairs(audited(folder), "near_duplicate_class") == [("Red", "red")]


def table(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    path = folder / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "label", "sender"), *rows])
    return path


def listed(folder: Path) -> list[tuple[str, str, str]]:
    files = sorted(folder.glob("*/*/*.png"))
    return [(path.relative_to(folder).as_posix(), path.parent.name, path.stem) for path in files]


def test_a_table_and_its_files(folder: Path) -> None:
    rows = listed(folder)
    rows = [*rows[1:], ("gone.png", "red", "1"), ("train/red/5.png", "blue", "5"), ("train/red/6.png", "skip", "6")]
    source = sources.TableSource(table(folder, rows), image="file", label="label", group="sender", drop=["skip"])
    audit = audited(source)
    assert found_pairs(audit, "missing") == [("gone.png",)]
    assert found_pairs(audit, "unlisted") == [(listed(folder)[0][0],)]
    assert ("train/red/5.png#2", "train/red/5.png") in found_pairs(audit, "conflict")
    assert ("train/red/6.png#2",) in found_pairs(audit, "refused")


def test_copies_in_two_groups(folder: Path) -> None:
    shutil.copy(folder / "train/red/5.png", folder / "train/red/copy.png")
    source = sources.TableSource(table(folder, listed(folder)), image="file", label="label", group="sender")
    assert found_pairs(audited(source), "across_groups") == [("train/red/copy.png", "train/red/5.png")]


def test_a_second_source_contradicts(folder: Path) -> None:
    rows = [(file, label.upper(), sender) for file, label, sender in listed(folder)]
    rows[0] = (rows[0][0], "RED", rows[0][2])
    gone = folder / rows.pop()[0]
    source = sources.TableSource(table(folder, rows), image="file", label="label")
    audit = audited(source, against=sources.FolderSource(folder))
    assert found_pairs(audit, "conflict") == [(rows[0][0], rows[0][0])]
    key = gone.relative_to(folder).as_posix()
    assert found_pairs(audit, "unlisted") == [(key,), (key,)]


def test_dropped_rows_have_no_label_but_exist(folder: Path) -> None:
    rows = [
        (file, "skip" if place == 3 else label, sender) for place, (file, label, sender) in enumerate(listed(folder))
    ]
    source = sources.TableSource(table(folder, rows), image="file", label="label", drop=["skip"])
    for first, second in ((source, sources.FolderSource(folder)), (sources.FolderSource(folder), source)):
        audit = audited(first, against=second)
        assert not set(audit.counts) & {"conflict", "only_here", "unlisted"}


def test_a_second_source_lacks_files(folder: Path) -> None:
    other = Path(shutil.copytree(folder, folder.parent / "other"))
    (other / "val/red/5.png").unlink()
    audit = audited(folder, against=sources.FolderSource(other))
    assert found_pairs(audit, "only_here") == [("val/red/5.png",)]
    assert len(audit.findings) == 1


def test_sources_without_labels_or_rows(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "train/red/5.png", folder / "train/red/copy.png")
    audit = audited(sources.FolderSource(folder, labelled=False))
    assert found_pairs(audit, "exact_duplicate") == [("train/red/copy.png", "train/red/5.png")]
    assert audit.probe_accuracy is None
    assert audit.resizing is not None
    assert audit.resizing.reason.startswith("from the shapes of the images only")
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="none has no images"):
        auditing.audit(sources.FolderSource(tmp_path / "none", labelled=False))


def test_settings_and_keywords_mean_the_same(folder: Path) -> None:
    source = sources.FolderSource(folder)
    settings = AuditSettings(**SMALL, val=0.5)
    assert audited(source, val=0.5).findings == auditing.audit(source, settings=settings).findings
    with pytest.raises(TypeError, match="backbon"):
        auditing.audit(source, settings=settings, backbon=SMALL["backbone"])


def test_without_usable_rows_there_is_no_crash(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.png").write_bytes(b"")
    audit = audited(tmp_path)
    assert found_pairs(audit, "empty") == [("a/x.png",), ("b/x.png",)]
    assert audit.resizing is None
