"""`BucketSource`: class folders in a bucket of object storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from visionadapt.core.records import Record
from visionadapt.errors import SourceError
from visionadapt.sources.arguments import several
from visionadapt.sources.class_folders import ClassFolders
from visionadapt.sources.layout import ORDER
from visionadapt.sources.objects.below import Below
from visionadapt.sources.objects.tree import ListedTree
from visionadapt.sources.objects.urls import object_url
from visionadapt.sources.tree import Place, Tree


@dataclass(frozen=True, repr=False)
class BucketSource(ClassFolders):
    """Images in class folders below a place in a bucket: Amazon S3 and what speaks its protocol, Google, Azure.

    Layouts, rows, keys and their order are those of `FolderSource` on the same files. The bucket is listed once, when
    the first row is needed. A row's object is read only if it still has the ETag that was listed.

    Credentials and endpoints come from the provider's own chain (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, roles of machines,
    `GOOGLE_APPLICATION_CREDENTIALS`, …). They are named in no setting, and appear in no file and no message.

    Args:
        root: such as `s3://bucket/photos`, `gs://bucket/photos` or `az://container/photos`.
        labelled, group, split, label, drop, max_bytes: as in `FolderSource`.
        train, val, test: folders below the root, as in `FolderSource`; no lists of images.
        timeout: seconds that a request may take.
        retries: how many times a request is repeated if the store is busy or unreachable, or stops in the middle.

    Raises:
        SourceError: an argument is invalid. Errors of the store are raised when it is first contacted.
    """

    root: str
    _: KW_ONLY
    labelled: bool = True
    group: str | None = None
    split: str | None = None
    label: str | None = None
    train: str | Sequence[str] = ()
    val: str | Sequence[str] = ()
    test: str | Sequence[str] = ()
    drop: str | Sequence[str] = ()
    max_bytes: int = 1 << 28
    timeout: float = 30.0
    retries: int = 5

    def __post_init__(self) -> None:
        self._set(root=str(object_url(str(self.root))))
        self._normalize_folders()
        for option in ORDER:
            folders = (folder.strip("/") for folder in several(getattr(self, option)))
            self._set(**{option: tuple("" if folder == "." else folder for folder in folders)})
        self._check_splits()
        if not self.timeout > 0 or self.retries < 0:
            raise SourceError(f"{self.root}: timeout= must be positive seconds, retries= a number of at least 0")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.root.rpartition("/")[2]

    def resolved(self) -> BucketSource:
        """Return the same source: a URL means the same in any working folder."""
        return self

    @property
    def reads_ahead(self) -> int:
        """How many images are worth requesting at once."""
        return self._objects.reads_ahead

    def read(self, record: Record) -> bytes:
        """Return the object's bytes.

        Raises:
            ImageError: it is gone, too large or has changed, or does not come although the store answers.
            SourceError: the store does not answer, or does not accept the credentials.
        """
        return self._objects.read(record.location or record.key, record.key)

    def version_of(self, record: Record) -> str | None:
        """Return the object's ETag and size as the bucket listed them."""
        return self._objects.version(record.location or record.key)

    def identity_of(self, record: Record) -> str | None:
        """Return a string that no other bytes have had: a hash of the object's URL, ETag and size."""
        return self._objects.identity(record.location or record.key)

    @property
    def _tree(self) -> Tree:
        if not len(self._objects.listing):
            raise SourceError(f"{self.root}: there are no objects; correct the URL")
        return ListedTree(Place(self.root, "bucket"), without=frozenset(self.drop), listing=self._objects.listing)

    @cached_property
    def _objects(self) -> Below:
        return Below(self.root, self.max_bytes, self.timeout, self.retries)
