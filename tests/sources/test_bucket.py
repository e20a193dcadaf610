"""Object storage: the same rows as a folder, whatever the store does, and no secret anywhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from visionadapt.core import spec
from visionadapt.core.records import Manifest
from visionadapt.data.dataset import ImageDataset
from visionadapt.data.loading import samples
from visionadapt.errors import ImageError, SourceError
from visionadapt.images import Augmentation, DecodeAdapter, ResizeAdapter, compose
from visionadapt.runs.trust import wants
from visionadapt.sources import BucketSource, FolderSource, TableSource
from visionadapt.sources.objects.listing import ObjectList
from visionadapt.sources.opening import open_source

from .object_storage import BUCKET, Store, busy, cut, error, sometimes
from .serving import Reply

Make = Callable[..., Path]
ROOT = f"s3://{BUCKET}/set"
SECRETS = ("AKIASECRETKEY", "very-secret-word")


def photos(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (number * 40 % 256, 90, number)).save(root / name)
    return root


NAMES = ("cat/10.png", "cat/9.png", "cat/é 1+2%20.png", "cat/deep/er/x.png", "dog/1.png", "dog/#a?b.png", "loose.png")


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/dog/2.png", "other/1.png"),
        ("cat/train/1.png", "cat/test/1.png", "dog/train/1.png", "dog/test/2.png"),
        ("a/1.png", "a-b/1.png", "a.b/1.png", "a0/1.png", "a/b/1.png"),
    ],
)
def test_rows_classes_and_notes_are_those_of_the_folder(store: Store, tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = photos(tmp_path / "set", *names)
    (folder / names[0]).with_suffix(".txt").write_text("about the image")
    (folder / ".hidden").write_text("x")
    store.put_folder(folder, "set")
    store.put("set/cat/made_by_hand/", b"")
    bucket, local = BucketSource(ROOT), FolderSource(folder)
    assert list(bucket) == list(local)
    assert bucket.classes == local.classes
    assert bucket.notes() == local.notes()
    usable = [row for row in local if row.problem is None]
    assert [bucket.read(row) for row in usable] == [local.read(row) for row in usable]
    unlabelled = [row.key for row in BucketSource(ROOT, labelled=False)]
    assert unlabelled == [row.key for row in FolderSource(folder, labelled=False)]


def test_a_url_is_data_and_a_run_writes_it_as_such(store: Store, tmp_path: Path) -> None:
    store.put_folder(photos(tmp_path / "set", *NAMES), "set")
    source = open_source(f"{ROOT}/")
    assert source == BucketSource(ROOT)
    assert spec.parse(spec.format(source, "source"), "source") == source
    assert BucketSource(ROOT, drop=["dog"]).classes == ("cat",)


@pytest.mark.parametrize("url", ["s3://", "s3:///a", "s3://me:word@photos/a", "s3://photos?key=1", "s3://ph otos/a"])
def test_what_is_no_url_of_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(SourceError):
        BucketSource(url)


@pytest.mark.slow
def test_faults_lose_no_row_and_change_no_byte(store: Store, tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", *(f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(30)))
    store.put_folder(folder, "set")
    store.fault = sometimes(0.3, 1, busy, cut(store))
    source = BucketSource(ROOT)
    found = [hashlib.sha256(source.read(row)).hexdigest() for row in source]
    assert found == [hashlib.sha256((folder / row.key).read_bytes()).hexdigest() for row in FolderSource(folder)]
    assert len(store.gets()) > len(found)


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("ExpiredToken", 400, "the credentials have expired"),
        ("InvalidAccessKeyId", 403, "the credentials are not accepted"),
        ("SignatureDoesNotMatch", 403, "the credentials are not accepted"),
        ("NoSuchBucket", 404, "there is no such bucket"),
        ("PermanentRedirect", 301, "another region"),
        ("AccessDenied", 403, "access is denied"),
    ],
)
def test_what_is_wrong_with_the_store_ends_the_run_in_one_line(
    store: Store, tmp_path: Path, code: str, status: int, told: str
) -> None:
    store.put_folder(photos(tmp_path / "set", *NAMES), "set")
    source = BucketSource(ROOT, retries=1)
    row = next(iter(source))
    store.fault = error(code, status)
    for ask in (lambda: source.read(row), lambda: list(BucketSource(ROOT, retries=1))):
        with pytest.raises(SourceError, match=told) as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert not any(secret in str(caught.value) for secret in SECRETS)


def test_one_object_that_does_not_come_is_a_row_that_may_come_later(store: Store, tmp_path: Path) -> None:
    store.put_folder(photos(tmp_path / "set", *NAMES), "set")
    source = BucketSource(ROOT, retries=1)
    rows = list(source)
    store.fault = lambda request: busy(request) if request.path.endswith(rows[0].key) else None
    with pytest.raises(ImageError, match="does not come") as caught:
        source.read(rows[0])
    assert not caught.value.lasting
    assert source.read(rows[1])


def test_a_store_that_is_not_there_ends_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="does not come from the store"):
        list(BucketSource(ROOT, retries=0))


def test_objects_that_change_vanish_or_grow_are_rows_with_a_reason(store: Store, tmp_path: Path) -> None:
    store.put_folder(photos(tmp_path / "set", *NAMES), "set")
    source = BucketSource(ROOT)
    rows = {row.key: row for row in source}
    before = {key: (source.version_of(row), source.identity_of(row)) for key, row in rows.items()}
    store.put("set/dog/1.png", b"other bytes")
    with pytest.raises(ImageError, match="has changed since it was listed"):
        source.read(rows["dog/1.png"])
    again = BucketSource(ROOT)
    changed = {key for key, row in rows.items() if (again.version_of(row), again.identity_of(row)) != before[key]}
    assert changed == {"dog/1.png"}
    store._ask("DELETE", f"/{BUCKET}/set/dog/1.png")
    with pytest.raises(ImageError, match="no such object"):
        again.read(rows["dog/1.png"])
    with pytest.raises(ImageError, match="more than the limit max_bytes=10"):
        BucketSource(ROOT, max_bytes=10).read(rows["cat/9.png"])


def test_a_table_names_objects_below_its_root_and_no_others(store: Store, tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", *NAMES)
    store.put_folder(folder, "set")
    store.put("elsewhere/1.png", b"x")
    texts = [
        f"{ROOT}/cat/9.png",
        "dog/1.png",
        "s3://photos/elsewhere/1.png",
        "s3://other/set/1.png",
        "../elsewhere/1.png",
    ]
    texts += ["https://evil.example/1.png", f"{ROOT}/cat/none.png", "s3://me:word@photos/set/1.png"]
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n" + "".join(f"{text},{number % 2}\n" for number, text in enumerate(texts)))
    source = TableSource(table, "image", "label", root=ROOT)
    rows = list(source)
    assert [row.problem is None for row in rows] == [True, True, *[False] * 6]
    assert "no such object" in str(rows[6].problem)
    assert [row.key for row in rows[:2]] == ["cat/9.png", "dog/1.png"]
    assert source.read(rows[0]) == (folder / "cat/9.png").read_bytes()
    assert source.identity_of(rows[0]) == BucketSource(ROOT).identity_of(rows[0])
    assert spec.parse(spec.format(source.resolved(), "source"), "source") == source.resolved()
    plain = TableSource(table, "image", "label")
    assert "give root=s3://photos" in str(plain.advice(next(iter(plain))))


@pytest.mark.parametrize(
    "value", [ROOT, f"bucket({ROOT})", f"csv(a.csv, image=a, root={ROOT})", f"parquet({ROOT}/a.parquet, image=a)"]
)
def test_a_stored_url_needs_the_users_word(value: str) -> None:
    assert wants("data", value)


PREPARE = compose(DecodeAdapter(), ResizeAdapter(16))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])  # they are started afresh
def test_many_rows_are_requested_at_once_and_come_in_order(store: Store, tmp_path: Path, workers: int) -> None:
    folder = photos(tmp_path / "set", *(f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(12)))
    store.put_folder(folder, "set")
    store.fault = sometimes(0.2, 3, busy)
    source, local = BucketSource(ROOT), FolderSource(folder)
    found = [
        list(samples(ImageDataset(Manifest(each, each), PREPARE, Augmentation("none")), workers))
        for each in (source, local)
    ]
    assert [row.finding for row in found[0]] == [row.finding for row in found[1]]


class Known(dict[str, str]):
    """SHA-256 by identity, of which every row's features are cached."""

    def __contains__(self, name: object) -> bool:
        return True


def test_a_known_object_is_not_read_again(store: Store, tmp_path: Path) -> None:
    store.put_folder(photos(tmp_path / "set", *NAMES), "set")
    source = BucketSource(ROOT)
    manifest = Manifest(source, source)
    dataset = ImageDataset(manifest, PREPARE, Augmentation("none"))
    first = [row.finding for row in samples(dataset)]
    contents = Known({str(dataset.identity_of(row.index)): row.sha256 for row in first})
    del store.site.requests[:]
    again = replace(dataset, known=contents, contents=contents)
    assert [row.finding for row in samples(again)] == first
    assert store.gets() == []
    assert len(store.site.requests) == 0


def test_names_in_any_order_make_the_same_list() -> None:
    names = ["b/2.png", "b/10.png", "a.png", "b/c/1.png", "b.png", "b/.x/1.png", "b-/1.png"]
    lists = []
    for order in (names, sorted(names)):
        listing = ObjectList()
        for name in order:
            listing.append(name, len(name), f"tag {name}")
        lists.append(listing.sort())
    for listing in lists:
        assert [found.location for found in listing.walk("")] == [
            *("a.png", "b/2.png", "b/10.png", "b/c/1.png", "b-/1.png", "b.png")
        ]
        assert [listing.find(name) is not None for name in names] == [True] * 5 + [False, True]
        row = listing.find("b/10.png")
        assert row is not None
        assert (listing.size(row), listing.etag(row)) == (8, "tag b/10.png")


def test_credentials_are_in_no_setting(store: Store, tmp_path: Path) -> None:
    store.put_folder(photos(tmp_path / "set", *NAMES), "set")
    source = BucketSource(ROOT)
    list(source)
    told = json.dumps([spec.format(source, "source"), repr(source), repr(source.__getstate__())])
    assert not any(secret in told for secret in SECRETS)


def test_slow_answers_are_given_up(store: Store, tmp_path: Path) -> None:
    store.put_folder(photos(tmp_path / "set", "cat/1.png", "dog/1.png"), "set")
    source = BucketSource(ROOT, timeout=0.3, retries=1)
    row = next(iter(source))
    calls: list[float] = []

    def slow(request: object) -> Reply | None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(1)
        return None

    store.fault = slow
    assert source.read(row)
    assert len(calls) == 2


def listed(*keys: str, more: bool = False) -> Reply:
    """A page of a bucket's list, as a store sends it."""
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>9</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key in keys
    )
    token = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" if more else ""
    return Reply(f"<ListBucketResult><Name>photos</Name>{token}{rows}</ListBucketResult>".encode())


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (listed("set/a/1.png", "elsewhere/a/2.png"), "not in set/"),
        (listed(*["set/a/1.png"] * 1000, more=True), "again and again"),
        (listed("set/../../etc/1.png"), "cannot be read; rename it"),
        (listed("set/a//1.png"), "cannot be read; rename it"),
        (listed("set/a/b\tc.png"), "cannot be read; rename it"),
        (Reply(b"<!DOCTYPE l [<!ENTITY a 'b'>]><ListBucketResult>&a;"), "does not come from the store"),
    ],
)
def test_lists_that_lie_end_in_one_line(store: Store, reply: Reply, told: str) -> None:
    store.fault = lambda request: reply
    with pytest.raises(SourceError, match=told) as raised:
        list(BucketSource(f"s3://{BUCKET}/set", retries=0))
    assert "\n" not in str(raised.value)
    assert len(store.site.requests) < 5


def test_odd_names_are_rows_of_their_own(store: Store) -> None:
    names = ("a/X.png", "a/x.png", f"a/{'y' * 1000}.png", "a/%2e%2e.png", "b/1.png")
    store.fault = lambda request: listed(*(f"set/{name}" for name in names))
    assert sorted(record.key for record in BucketSource(f"s3://{BUCKET}/set")) == sorted(names)
    store.fault = lambda request: listed("set/a/x.png", "set/a/x.png", "set/b/1.png")
    assert [record.problem is None for record in BucketSource(f"s3://{BUCKET}/set")] == [True, False, True]


@pytest.mark.parametrize("size", [3, 9, 5000])
def test_a_body_that_is_larger_than_listed_is_refused_by_its_own_size(store: Store, size: int) -> None:
    head = {"ETag": "x", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Content-Encoding": "gzip"}
    body = gzip.compress(bytes(1 << 20))[:size].ljust(size, b"0")
    store.fault = lambda request: listed("set/a/1.png", "set/b/2.png") if request.query else Reply(body, headers=head)
    source = BucketSource(f"s3://{BUCKET}/set", max_bytes=1000)
    record = next(iter(source))
    if size > 1000:
        with pytest.raises(ImageError, match="more than the limit"):
            source.read(record)
    else:
        assert source.read(record) == body, "and nothing is inflated"
