"""`FolderSource` on the layouts of published image sets: the right classes and splits, or an error with the remedy."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from visionadapt.core import spec
from visionadapt.core.records import Record
from visionadapt.data.splits import split
from visionadapt.errors import ImageError, SourceError, SplitError
from visionadapt.sources import FolderSource
from visionadapt.sources.opening import open_source
from visionadapt.sources.split_names import split_of_folder


def drawn(root: Path, *folders: str, count: int = 2) -> Path:
    """Draw `count` images into each folder; a name with a suffix is a single file, of text unless it is a PNG."""
    for number, folder in enumerate(folders):
        is_file = Path(folder).suffix in {".csv", ".jpg_large", ".json", ".md", ".png", ".svg", ".txt", ".TXT", ".xml"}
        names = [""] if is_file else [f"{index}.png" for index in range(count)]
        for name in names:
            path = root / folder / name if name else root / folder
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                Image.new("RGB", (8, 8), (number * 7 % 256, 9, 9)).save(path)
            else:
                path.write_text("some text")
    return root


def below(*parts: str, classes: tuple[str, ...] = ("cat", "dog")) -> list[str]:
    return ["/".join(pair) for pair in itertools.product(parts, classes)]


def found(source: FolderSource) -> tuple[tuple[str, ...], Counter[tuple[str | None, str | None]]]:
    """Classes, and the number of usable rows by (split, class); each of the rows can be read."""
    rows = [record for record in source if record.problem is None]
    assert all(source.read(record) for record in rows)
    return source.classes, Counter((record.split, record.label) for record in rows)


SPLIT = {
    "capital": (["Training", "Testing"], "train test"),
    "dev": (["train", "dev"], "train val"),
    "data": (["train_data", "val_data"], "train val"),
    "case": (["TRAIN", "Valid"], "train val"),
    "doubled": (["training_set/training_set", "test_set/test_set"], "train test"),
    "images before": (["images_train", "images_val"], "train val"),
    "images behind": (["train images", "valid images", "test images"], "train val test"),
    "numbered": (["01_train", "02_val", "03_test"], "train val test"),
    "years": (["train2017", "val2017"], "train val"),
    "named set": (["my-dataset-train", "my-dataset-test"], "train test"),
    "doubled and named": (["seg_train/seg_train", "seg_test/seg_test"], "train test"),
    "fruits": (["Training", "Test"], "train test"),
    "camel": (["TrainImages", "TestImages"], "train test"),
    "glued": (["trainset", "evalset"], "train test"),
    "hugging face": (["training", "validation", "evaluation"], "train val test"),
    "wrapped": (["train/images", "test/images"], "train test"),
    "imagenet": (["ILSVRC2012_img_train", "ILSVRC2012_img_val"], "train val"),
    "full width": (["ｔｒａｉｎ", "ｔｅｓｔ"], "train test"),
}


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize(
    "classes", [("cat", "dog"), ("0", "1", "10"), ("001.Black_footed_Albatross", "002.Laysan_Tern")]
)
def test_folders_that_are_splits_by_another_name(tmp_path: Path, name: str, classes: tuple[str, ...]) -> None:
    folders, splits = SPLIT[name]
    drawn(tmp_path, *below(*folders, classes=classes), "labels/1.txt", "__MACOSX/train/._1.png", "README.md")
    source = FolderSource(tmp_path)
    expected = Counter({(split, label): 2 for split in splits.split() for label in classes})
    assert found(source) == (classes, expected)
    assert source.splits == tuple(sorted(splits.split(), key=["train", "val", "test"].index))
    assert all(record.problem is None for record in source)
    told = [folder for folder, split in zip(folders, splits.split(), strict=True) if folder.casefold() != split]
    assert all(any(folder in line for line in source.notes()) for folder in told)


def test_a_split_that_lacks_some_classes_is_still_one(tmp_path: Path) -> None:
    drawn(
        tmp_path, *below("Training", classes=("a", "b", "c", "d")), *below("Testing", classes=("a", "b")), "Testing/e"
    )
    source = FolderSource(tmp_path)
    assert source.classes == ("a", "b", "c", "d")
    assert source.splits == ("train", "test")


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["cat", "dog", "test"], ("cat", "dog", "test")),
        (["cat", "dog", "dev", "training"], ("cat", "dev", "dog", "training")),
        (["bus", "car", "training/steam", "training/diesel"], ("bus", "car", "training")),
        (["bus", "car", "test/tube", "test/dummy"], ("bus", "car", "test")),
        (["crash_test", "bus", "train"], ("bus", "crash_test", "train")),
        (["n01440764", "n01443537", "n02102040"], ("n01440764", "n01443537", "n02102040")),
        (["Apple___Apple_scab", "Apple___healthy"], ("Apple___Apple_scab", "Apple___healthy")),
        (["cat/indoor", "cat/outdoor", "dog/indoor", "dog/outdoor"], ("cat", "dog")),
        (["cat/2021", "cat/2022", "cat/2023", "dog/2021", "dog/2022", "dog/2023"], ("cat", "dog")),
        (["valley/summer", "valley/winter", "coast/summer", "coast/winter"], ("coast", "valley")),
        (["class 1", "class 2"], ("class 1", "class 2")),
        (["steam/train", "crash/test"], ("crash", "steam")),
    ],
)
def test_classes_that_only_sound_like_splits(tmp_path: Path, folders: list[str], classes: tuple[str, ...]) -> None:
    source = FolderSource(drawn(tmp_path, *folders))
    assert source.classes == classes
    assert source.splits == ()
    assert {record.label for record in source} == set(classes)


def test_splits_in_each_class_folder(tmp_path: Path) -> None:
    drawn(tmp_path, "cat/train", "cat/test", "dog/Training", "dog/Testing", "bird/train")
    source = FolderSource(tmp_path)
    assert found(source) == (
        ("bird", "cat", "dog"),
        Counter({(split, name): 2 for split in ("train", "test") for name in ("cat", "dog")} | {("train", "bird"): 2}),
    )
    assert source.splits == ("train", "test")


UNCLEAR = {
    "one folder above": (["ds/cat", "ds/dog"], "{root}/ds"),
    "two folders above": (["archive/dataset/cat", "archive/dataset/dog"], "{root}/archive/dataset"),
    "splits below one folder": (below("archive/dataset/train", "archive/dataset/val"), "{root}/archive/dataset"),
    "one folder above, beside annotations": (["images/cat", "images/dog", "annotations/1.xml"], "{root}/images"),
    "versions": (below("color", "grayscale", "segmented", classes=("a", "b", "c", "d")), "{root}/color"),
    "a copy of the set in a folder": (
        ["test/test", *below("Plants(New)/Plants(New)/train", "Plants(New)/Plants(New)/valid")],
        "{root}/Plants(New)/Plants(New)",
    ),
    "two versions": (below("Original Dataset", "Augmented Dataset"), "{root}/Augmented Dataset"),
    "a few versions": (below("color", "grayscale", "segmented"), "{root}/color"),
    "folds": (below("fold_1", "fold_2", "fold_3", "fold_4"), "group="),
    "people": (below("subject01", "subject02", "subject03", "subject04"), "group="),
    "numbers": (below("1", "2", "3", "4"), "group="),
    "images without labels": (
        [
            f"{part}_images/{name}_{number}.png"
            for part in ("train", "test", "unlabeled")
            for name in "ab"
            for number in (1, 2)
        ],
        "label=",
    ),
    "domains": (below("amazon/images", "dslr/images", classes=("bag", "bike", "cap")), "{root}/amazon"),
    "splits in another language": (below("Trainingsdaten", "Testdaten"), "train="),
    "numbered parts": (["set_images_part_1", "set_images_part_2"], "label="),
    "one folder of images": (["jpg/cat_0.png", "jpg/cat_1.png", "jpg/dog_0.png", "jpg/dog_1.png"], "label="),
    "other splits": (below("learn", "test"), "train="),
    "two in one name": (below("train_val", "test"), "train="),
    "unlabelled beside train": ([*below("train"), "unlabelled"], "train=train"),
    "augmented": (below("train", "train_augmented", "val"), ", train=train, val=val)"),
    "augmented for a test": (below("train", "test", "test augmented"), "train=train, test=[test, test augmented]"),
    "classes beside test": (["cat", "dog", *below("test")], "test=test"),
    "classes beside train": (["cat", "dog", *below("train")], "train=train"),
    "other classes in test": (["train/a", "train/b", "test/c", "test/d", "cat", "dog"], "train=train, test=test"),
    "splits in the names of classes": (["cat_train", "cat_test", "dog_train", "dog_test"], "label="),
    "splits in some classes": (["cat/train", "cat/test", "dog"], "split="),
    "more than splits": (["bottle/train", "bottle/test", "bottle/truth", "can/train", "can/test"], "{root}/bottle"),
    "two sets": ([*below("one/train", "one/test"), *below("two/train", "two/test")], "{root}/one"),
    "names in files": (["cat_0.png", "cat_1.png", "dog_0.png", "dog_1.png"], "label='([a-z]+)_[0-9]+'"),
    "names in files of splits": (
        ["train/cat.0.png", "train/cat.1.png", "train/dog.0.png", "train/dog.1.png"],
        "label=",
    ),
    "boxes": (["images/train", "images/val", "labels/train/1.txt", "labels/val/1.txt"], "{root}/images"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_unclear_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    folders, remedy = UNCLEAR[name]
    tmp_path /= "my photos (1)"
    source = FolderSource(drawn(tmp_path, *folders))
    with pytest.raises(SourceError) as raised:
        _ = source.classes
    message = str(raised.value)
    assert remedy.format(root=tmp_path) in message
    assert str(tmp_path) in message and "\n" not in message
    for number, text in enumerate(message.split('--data "')[1:]):
        advised = open_source(text.partition('"')[0])
        assert advised.classes, (number, text)


def test_a_class_folder_given_as_the_root_names_the_folder_above(tmp_path: Path) -> None:
    drawn(tmp_path, "cat", "dog")
    with pytest.raises(SourceError, match=f"give {tmp_path} if cat"):
        _ = FolderSource(tmp_path / "cat").classes


@pytest.mark.parametrize(
    ("table", "content", "expected"),
    [
        ("metadata.csv", "file_name,label\n1.png,a\n", "csv({root}/metadata.csv, image=file_name, label=label)"),
        (
            "train/metadata.csv",
            "file_name,label\n1.png,a\n",
            "csv({root}/train/metadata.csv, image=file_name, label=label)",
        ),
        (
            "metadata.jsonl",
            '{"file_name": "1.png", "class": "a"}\n',
            "jsonl({root}/metadata.jsonl, image=file_name, label=class)",
        ),
        (
            "train/_classes.csv",
            "filename, cat, dog\n1.png, 1, 0\n",
            "csv({root}/train/_classes.csv, image=filename, label=[cat, dog])",
        ),
        ("labels.tsv", "Image\tSpecies\n1.png\ta\n", "tsv({root}/labels.tsv, image=Image, label=Species)"),
    ],
)
def test_a_table_beside_images_is_named_with_its_spec(tmp_path: Path, table: str, content: str, expected: str) -> None:
    drawn(tmp_path, "1.png" if "/" not in table else "train/1.png")
    (tmp_path / table).write_text(content)
    with pytest.raises(SourceError) as raised:
        _ = FolderSource(tmp_path).classes
    assert expected.format(root=tmp_path) in str(raised.value)


def test_arguments_say_what_the_folders_are(tmp_path: Path) -> None:
    drawn(tmp_path, *below("first", "second/part", "third"), "cat", "extra/cat", "1.png")
    text = f"folder({tmp_path}, train=[first, second/part], val={tmp_path}/third)"
    source = spec.parse(text, "source")
    assert found(source) == (
        ("cat", "dog"),
        Counter({(split, label): count for split, count in (("train", 4), ("val", 2)) for label in ("cat", "dog")}),
    )
    assert spec.parse(spec.format(source, "source"), "source") == source
    assert {record.key for record in source if record.problem is not None} == {"1.png", "cat", "extra"}


def test_the_root_itself_may_be_a_split(tmp_path: Path) -> None:
    drawn(tmp_path, "cat", "dog", *below("test"))
    source = FolderSource(tmp_path, train=".", test="test")
    assert found(source) == (
        ("cat", "dog"),
        Counter({(split, label): 2 for split in ("train", "test") for label in ("cat", "dog")}),
    )
    drawn(tmp_path / "ds", "ds/cat", "ds/dog")
    assert FolderSource(tmp_path / "ds", train=".").classes == ("ds",)


@pytest.mark.parametrize("options", [{"train": "trian"}, {"train": "../x"}, {"val": "train"}, {"train": "/"}])
def test_folders_that_are_not_there_are_told(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="=" if "val" not in options else "need train="):
        FolderSource(drawn(tmp_path, *below("train")), **options)


def test_classes_in_the_names_of_files(tmp_path: Path) -> None:
    drawn(tmp_path, "cat_0.png", "deep/cat_1.png", "dog_0.png", "dog_1.png", "IMG.png", "notes.txt")
    source = spec.parse(f'folder({tmp_path}, label="([a-z]+)_[0-9]+")', "source")
    assert found(source) == (("cat", "dog"), Counter({(None, "cat"): 2, (None, "dog"): 2}))
    assert [record.key for record in source if record.problem is not None] == ["IMG.png"]
    assert spec.parse(spec.format(source, "source"), "source") == source
    with pytest.raises(SourceError, match="label='x'"):
        _ = FolderSource(tmp_path, label="x").classes
    with pytest.raises(SourceError, match="label="):
        FolderSource(tmp_path, label="(")


def test_classes_in_the_names_of_files_in_split_folders(tmp_path: Path) -> None:
    drawn(tmp_path, "train/cat.0.png", "train/dog.0.png", "valid/cat.1.png", "test1/1.png")
    source = FolderSource(tmp_path, label="(cat|dog)[.]")
    assert found(source) == (
        ("cat", "dog"),
        Counter({("train", "cat"): 1, ("train", "dog"): 1, ("val", "cat"): 1}),
    )
    assert [(record.key, record.split) for record in source if record.problem is not None] == [("test1/1.png", "test")]


def test_a_class_written_differently_in_two_splits_is_refused(tmp_path: Path) -> None:
    drawn(tmp_path, "train/Cat", "train/dog", "val/cat", "val/dog")
    with pytest.raises(SourceError) as raised:
        _ = FolderSource(tmp_path).classes
    assert "train/Cat" in str(raised.value) and "val/cat" in str(raised.value)
    drawn(tmp_path, "train/cat", "val/Cat")
    assert FolderSource(tmp_path).classes == ("Cat", "cat", "dog")


def test_a_class_that_is_only_in_validation_is_told_with_its_folder(tmp_path: Path) -> None:
    source = FolderSource(drawn(tmp_path, *below("train", "valid"), "valid/bird"))
    with pytest.raises(SplitError, match=r"'bird'.*valid/bird/0\.png"):
        split(source)


def test_files_that_tell_about_images_are_counted_and_no_rows(tmp_path: Path) -> None:
    drawn(tmp_path, "a", "b", "a/0.txt", "a/1.TXT", "a/deep/2.json", "b/box.xml", "b/labels.csv", "README.md")
    drawn(tmp_path, "a/photo.jpg_large", "b/photo", "b/vector.svg")
    source = FolderSource(tmp_path)
    assert {record.key for record in source} == {
        *(f"{name}/{number}.png" for name in "ab" for number in range(2)),
        *(f"b/photo/{number}.png" for number in range(2)),
        "a/photo.jpg_large",
        "b/vector.svg",
    }
    (line,) = source.notes()
    assert "5" in line and "2 .txt" in line and "1 .json" in line and "1 .xml" in line and "1 .csv" in line
    assert FolderSource(drawn(tmp_path / "b", "x")).notes() == ()


def test_a_folder_with_images_beside_the_splits_is_told(tmp_path: Path) -> None:
    drawn(tmp_path, *below("train", "test"), "unlabelled", "docs/readme.md", *below("chest/train", "chest/test"))
    source = FolderSource(tmp_path)
    assert source.classes == ("cat", "dog")
    assert sorted(record.key for record in source if record.problem is not None) == ["chest", "unlabelled"]


def test_classes_can_be_left_out(tmp_path: Path) -> None:
    drawn(tmp_path, "cat", "dog", "masks")
    source = spec.parse(f"folder({tmp_path}, drop=[masks])", "source")
    assert found(source) == (("cat", "dog"), Counter({(None, "cat"): 2, (None, "dog"): 2}))
    assert [record.problem for record in source if record.problem] == ["dropped: its label is 'masks'"] * 2


def test_linked_class_folders_and_splits(tmp_path: Path) -> None:
    drawn(tmp_path / "elsewhere", "cat", *below("train", "val"))
    root = drawn(tmp_path / "linked", "dog", "bird")
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cat", target_is_directory=True)
    with pytest.raises(SourceError, match=r"linked/cat is a symbolic link .*follow_links=True"):
        _ = FolderSource(root).classes
    source = spec.parse(f"folder({root}, follow_links=true)", "source")
    assert found(source) == (("bird", "cat", "dog"), Counter({(None, name): 2 for name in ("bird", "cat", "dog")}))
    assert spec.parse(spec.format(source, "source"), "source") == source
    assert FolderSource(root, drop="cat").classes == ("bird", "dog")

    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("train", "val"):
        (parts / name).symlink_to(tmp_path / "elsewhere" / name, target_is_directory=True)
    with pytest.raises(SourceError, match="follow_links=True"):
        list(FolderSource(parts))
    followed = FolderSource(parts, follow_links=True)
    assert (followed.classes, followed.splits, len(followed)) == (("cat", "dog"), ("train", "val"), 8)


def test_a_broken_link_among_the_class_folders_is_told(tmp_path: Path) -> None:
    drawn(tmp_path, "dog", "bird")
    (tmp_path / "cat").symlink_to(tmp_path / "unmounted")
    for follow_links in (False, True):
        with pytest.raises(SourceError, match="cat is a symbolic link that leads nowhere"):
            _ = FolderSource(tmp_path, follow_links=follow_links).classes


def test_a_cache_of_blobs_behind_links(tmp_path: Path) -> None:
    drawn(tmp_path / "blobs", "0.png", "1.png")
    root = tmp_path / "snapshots" / "a1b2"
    for name in below("train", "test"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            (root / name / f"{number}.png").symlink_to(f"../../../../blobs/{number}.png")
    with pytest.raises(SplitError, match="follow_links=true"):
        split(FolderSource(root))
    source = FolderSource(root, follow_links=True)
    assert found(source)[1] == Counter({(part, label): 2 for part in ("train", "test") for label in ("cat", "dog")})


def test_followed_links_end_and_lead_nowhere_else(tmp_path: Path) -> None:
    drawn(tmp_path / "far", "a", "b")
    root = drawn(tmp_path / "root", "cat", "dog")
    (tmp_path / "far" / "a" / "back").symlink_to(root, target_is_directory=True)
    (tmp_path / "far" / "b" / "self").symlink_to(tmp_path / "far" / "b", target_is_directory=True)
    for name in "ab":
        (root / "cat" / name).symlink_to(tmp_path / "far" / name, target_is_directory=True)
    source = FolderSource(root, follow_links=True)
    good = [record for record in source if record.problem is None]
    assert len(good) == 8
    assert {record.problem for record in source} - {None} == {"a symbolic link to a folder that contains it"}
    for key in ("../far/a/0.png", str(tmp_path / "far/a/0.png")):
        with pytest.raises(ImageError, match="leads out"):
            source.read(Record(key))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Train", ("train", True)),
        ("test_tube", ("test", False)),
        ("contest", (None, False)),
        ("trainval", (None, False)),
    ],
)
def test_the_names_of_splits(name: str, expected: object) -> None:
    assert split_of_folder(name) == expected


@pytest.mark.parametrize(
    ("folders", "remedy"),
    [
        (["images", "annotations/trimaps", "annotations/list.txt"], "images"),
        (
            ["101_ObjectCategories/accordion", "101_ObjectCategories/anchor", "Annotations/a.mat"],
            "101_ObjectCategories",
        ),
        (["cars_train", "cars_test", "devkit/cars_meta.mat"], "drop=devkit"),
        (["JPEGImages", "Ground_Truth"], "JPEGImages"),
    ],
)
def test_what_lies_beside_the_images_is_no_class(tmp_path: Path, folders: list[str], remedy: str) -> None:
    for folder in folders:
        if folder.endswith(".mat"):
            (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder).write_bytes(b"MATLAB 5.0")
    source = FolderSource(drawn(tmp_path, *(folder for folder in folders if not folder.endswith(".mat"))))
    with pytest.raises(SourceError, match=remedy):
        source.classes  # noqa: B018
    assert len(FolderSource(tmp_path, train=".").classes) >= 2


def test_classes_that_only_sound_like_annotations(tmp_path: Path) -> None:
    assert FolderSource(drawn(tmp_path, "masks", "gloves", "labels")).classes == ("gloves", "labels", "masks")


def test_a_table_beside_the_only_folder_is_named(tmp_path: Path) -> None:
    drawn(tmp_path, "Training_Input", count=4)
    rows = "".join(f"{number},{float(number % 2)},{float(1 - number % 2)}\n" for number in range(4))
    (tmp_path / "GroundTruth.csv").write_text("image,MEL,NV\n" + rows)
    with pytest.raises(SourceError, match="label=\\[MEL, NV\\]") as caught:
        FolderSource(tmp_path).classes  # noqa: B018
    text = str(caught.value).partition('--data "')[2].partition('"')[0]
    assert {record.label for record in open_source(text)} == {"MEL", "NV"}


def test_doubled_folders_without_classes_are_answered_with_the_table_of_their_labels(tmp_path: Path) -> None:
    """As Kaggle has them: the numbers of the test set begin anew, and an example of answers lies beside the labels."""
    for folder, part, count in (("a", "{0}/{0}", 6), ("b", "{0}/images", 6)):
        root = tmp_path / folder
        drawn(root, part.format("train"), count=count)
        drawn(root, part.format("test"), count=4)
        for name, labels in (("sample_submission", "00"), ("train_labels", "01")):
            rows = "".join(f"{number},{labels[number % 2]}\n" for number in range(count))
            (root / f"{name}.csv").write_text(f"id,label\n{rows}")
        for given in (root, root / "train"):
            with pytest.raises(SourceError, match=r"train_labels\.csv") as caught:
                FolderSource(given).classes  # noqa: B018
            advised = open_source(str(caught.value).partition('--data "')[2].partition('"')[0])
            rows = list(advised)
            assert [row.label for row in rows] == ["0", "1"] * 3 and not any(row.problem for row in rows)
            assert advised.read(rows[0]) == (root / part.format("train") / "0.png").read_bytes()


def test_tables_of_several_splits_are_put_together(tmp_path: Path) -> None:
    """As Roboflow and the Hugging Face hub have them."""
    for name in ("train", "valid", "test"):
        drawn(tmp_path, name, count=4)
        rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(4))
        (tmp_path / name / "metadata.csv").write_text(f"file_name,label\n{rows}")
    with pytest.raises(SourceError) as caught:
        FolderSource(tmp_path).classes  # noqa: B018
    advised = open_source(str(caught.value).partition('--data "')[2].partition('"')[0])
    rows = [(row.key, row.label, row.split) for row in advised if row.problem is None]
    assert rows == [
        (f"{name}/{number}.png", "ab"[number % 2], split)
        for name, split in (("train", "train"), ("valid", "val"), ("test", "test"))
        for number in range(4)
    ]


def test_of_several_tables_the_one_to_train_on_is_named(tmp_path: Path) -> None:
    """As Kaggle's copy of GTSRB has them, whose `Meta` are drawings of the signs."""
    drawn(tmp_path, "Meta/0.png", "Meta/1.png")
    drawn(tmp_path, "Train/0", "Train/1", "Test", count=4)
    for name in ("Meta", "Test", "Train"):
        paths = [path.relative_to(tmp_path) for path in sorted((tmp_path / name).rglob("*.png"))]
        rows = "".join(f"{number % 2},{path}\n" for number, path in enumerate(paths))
        (tmp_path / f"{name}.csv").write_text(f"ClassId,Path\n{rows}")
    with pytest.raises(SourceError) as caught:
        FolderSource(tmp_path).classes  # noqa: B018
    assert "Train.csv" in str(caught.value) and "Meta.csv" not in str(caught.value)


def test_a_validation_folder_without_class_folders_is_no_class(tmp_path: Path) -> None:
    """Tiny-ImageNet: class folders in train alone, a list of the labels in val."""
    drawn(tmp_path, "train/n01/images", "train/n02/images", "wnids.txt")
    drawn(tmp_path, "val/images", "test/images", count=12)
    lines = "".join(f"{number}.png\tn0{1 + number % 2}\t0\t32\t44\t62\n" for number in range(12))
    (tmp_path / "val/val_annotations.txt").write_text(lines)
    source = FolderSource(tmp_path)
    assert source.classes == ("n01", "n02")
    unused = next(record for record in source if record.split == "val")
    advised = open_source((source.advice(unused) or "").partition('--data "')[2].partition('"')[0])
    assert advised.classes == ("n01", "n02") and not any(record.split == "val" for record in advised)
    with pytest.raises(SourceError, match=r"val_annotations\.txt") as told:
        FolderSource(tmp_path / "val").classes  # noqa: B018
    rows = list(open_source(str(told.value).partition('--data "')[2].partition('"')[0]))
    assert [row.label for row in rows] == ["n01", "n02"] * 6 and not any(row.problem for row in rows)


def test_folders_of_annotations_by_class_are_no_split(tmp_path: Path) -> None:
    """Caltech-101."""
    classes = ("accordion", "anchor", "ant")
    source = FolderSource(drawn(tmp_path, *below("101_ObjectCategories", classes=classes)))
    for name in classes:
        (tmp_path / "Annotations" / name).mkdir(parents=True)
        (tmp_path / "Annotations" / name / "0.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(SourceError, match="101_ObjectCategories") as caught:
        source.classes  # noqa: B018
    assert "val=Annotations" not in str(caught.value)


def test_folders_within_classes_are_told(tmp_path: Path) -> None:
    places = ["Animalia/Canis/lupus", "Animalia/Felis/catus", "Plantae/Quercus/robur"]
    source = FolderSource(drawn(tmp_path, *(f"{split}/{place}" for split in ("train", "val") for place in places)))
    assert source.classes == ("Animalia", "Plantae")
    (line,) = source.notes()
    text = line.partition('--data "')[2].partition('"')[0]
    last = open_source(text)
    assert last.classes == ("catus", "lupus", "robur")
    assert Counter(record.split for record in last) == {"train": 6, "val": 6}


@pytest.mark.parametrize("split", ["", "train/"])
def test_masks_beside_images_are_told(tmp_path: Path, split: str) -> None:
    """As the ultrasound images of BUSI have them."""
    names = [f"{split}{kind}/{kind} ({n}){mask}.png" for kind in ("benign", "normal") for n in (1, 2, 3)
             for mask in ("", "_mask", *(["_mask_1"] if n == 1 else []))]  # fmt: skip
    (line,) = FolderSource(drawn(tmp_path, *names)).notes()
    assert "(8)" in line and f"{split}benign/benign (1)_mask.png" in line


def test_names_that_sound_like_masks_are_no_masks(tmp_path: Path) -> None:
    drawn(
        tmp_path, "with_mask/1_mask.png", "with_mask/2_mask.png", "without_mask/0-with-mask.png", "without_mask/0.png"
    )
    assert FolderSource(tmp_path).notes() == ()


def test_the_pattern_for_names_takes_whole_names(tmp_path: Path) -> None:
    names = [f"{name}_{number}.png" for name in ("Abyssinian", "great_pyrenees") for number in (1, 2, 30)]
    with pytest.raises(SourceError) as caught:
        FolderSource(drawn(tmp_path, *names)).classes  # noqa: B018
    text = str(caught.value).partition('--data "')[2].partition('"')[0]
    assert open_source(text).classes == ("Abyssinian", "great_pyrenees")


LABELME = '{"version": "5.4.1", "flags": {}, "shapes": [{"label": "cat", "points": [[1, 1], [9, 9]]}]}'
ANNOTATIONS = {
    "labelme": ("{folder}/0.json", LABELME, "labelme"),
    "labelme apart": ("json/0.json", LABELME, "labelme"),
    "Pascal VOC": ("Annotations/0.xml", "<annotation>\n\t<filename>0.png</filename>", "Pascal VOC"),
    "YOLO": ("labels/0.txt", "0 0.5 0.5 0.2 0.2\n3 0.1 0.1 0.1 0.1\n", "YOLO"),
    "COCO": ("annotations/instances.json", '{"info": {}, "licenses": [], "images": [{"id": 1}]}', "COCO"),
    "MATLAB": ("imagelabels.mat", "MATLAB 5.0 MAT-file", "scipy.io.loadmat"),
    "NumPy": ("{folder}/labels.npy", "\x93NUMPY", "NumPy"),
}


@pytest.mark.parametrize("folder", ["images", "."])
@pytest.mark.parametrize("name", ANNOTATIONS)
def test_labels_in_files_that_are_not_read_are_named(tmp_path: Path, name: str, folder: str) -> None:
    file, content, words = ANNOTATIONS[name]
    root = tmp_path / "set (1)"
    place = root / file.format(folder=folder)
    place.parent.mkdir(parents=True)
    place.write_text(content)
    for number in range(3):
        (root / folder).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / folder / f"{number}.png")
    with pytest.raises(SourceError) as caught:
        FolderSource(root / folder).classes  # noqa: B018
    message = str(caught.value)
    assert str(place) in message and words in message and "\n" not in message
    table = root / folder / "labels.csv"
    table.write_text("image,label\n0.png,cat\n1.png,dog\n")
    advised = message.partition('--data "')[2].partition('"')[0].replace("labels.csv", f"'{table}'")
    assert sorted(record.label or "" for record in open_source(advised)) == ["cat", "dog"]


def test_folders_of_annotations_beside_the_images_are_no_classes(tmp_path: Path) -> None:
    for number, beside in enumerate(("labels/0.txt", "json/0.json", "Annotations/0.xml")):
        source = FolderSource(drawn(tmp_path / str(number), "images", beside))
        with pytest.raises(SourceError, match=str(tmp_path / str(number) / "images")):
            source.classes  # noqa: B018


@pytest.mark.parametrize("labels", ["labels", "Annotations"])
def test_annotations_beside_the_images_of_each_split(tmp_path: Path, labels: str) -> None:
    root = drawn(tmp_path / "flat", *below("train", "valid", classes=("images",)), "classes.txt")
    for part in ("train", "valid"):
        (root / part / labels).mkdir()
        (root / part / labels / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(SourceError, match=f"{root / 'train' / 'images'}.*YOLO"):
        FolderSource(root).classes  # noqa: B018
    sorted_root = drawn(tmp_path / "sorted", *below("train/images", "test/images"))
    for part in ("train", "test"):
        drawn(sorted_root, f"{part}/{labels}/0.txt")
    classes, counts = found(FolderSource(sorted_root))
    assert classes == ("cat", "dog") and counts.total() == 8


@pytest.mark.parametrize("name", ["patient{}", "Case {}", "study-{}", "subject_{}", "sub-0{}"])
def test_a_folder_for_each_case_holds_no_class(tmp_path: Path, name: str) -> None:
    cases = [name.format(number) for number in (1, 2, 30)]
    flat, divided = (
        drawn(tmp_path / "flat", *cases),
        drawn(tmp_path / "divided", *below("train", "valid", classes=tuple(cases))),
    )
    for root in (flat, divided):
        with pytest.raises(SourceError, match=r"cases.*table") as caught:
            FolderSource(root).classes  # noqa: B018
        advised = str(caught.value).partition('--data "')[2].partition('"')[0]
        assert sorted(open_source(advised).classes) == sorted(cases)
    (tmp_path / "test.txt").write_text("".join(f"{case}/0.png\n" for case in cases))
    with pytest.raises(SourceError, match=r"cases.*table") as caught:
        FolderSource(flat, test=tmp_path / "test.txt").classes  # noqa: B018
    advised = str(caught.value).partition('--data "')[2].partition('"')[0]
    assert {record.split for record in open_source(advised) if record.key.endswith("/0.png")} == {"test"}
    more = drawn(tmp_path / "more", *below("train_1", "train_2", "test", classes=tuple(cases)))
    with pytest.raises(SourceError, match=r"cases.*table") as caught:
        FolderSource(more).classes  # noqa: B018
    advised = open_source(str(caught.value).partition('--data "')[2].partition('"')[0])
    assert {record.key.partition("/")[0] for record in advised if not record.problem} == {"train_1", "train_2", "test"}
    assert found(FolderSource(drawn(tmp_path / "mixed", "patient_1", "healthy")))[0] == ("healthy", "patient_1")


def test_notes_beside_images_are_no_annotations(tmp_path: Path) -> None:
    drawn(tmp_path, "0.png", "1.png", "0.txt", "0.json", "README.md")
    with pytest.raises(SourceError, match="label="):
        FolderSource(tmp_path).classes  # noqa: B018
