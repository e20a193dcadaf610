"""`Target`: a table to write, as a file or in object storage, where it appears when it is complete."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from visionadapt.core.sharding import Part, Shard
from visionadapt.errors import ImageError, RunError
from visionadapt.prediction.shards import Merged, Proof, check_mergeable, merge, proof_in, proof_path, written
from visionadapt.sources.objects.copies import exists, put
from visionadapt.sources.objects.store import Bucket
from visionadapt.sources.objects.urls import ObjectUrl, is_object_url, object_url
from visionadapt.system.cache_folder import default_folder
from visionadapt.system.storage import remove_unfinished

_MOST_PROOF = 1 << 32


@dataclass(frozen=True)
class Target:
    """A table at a path, or at a URL such as `s3://bucket/predictions.parquet`.

    Attributes:
        out: the path or URL, as it was given.
        beside: where a table for a URL is written before it is put there; by default a folder of its own in the user's
            cache folder, so that an interrupted command finds there what it has done.
    """

    out: str
    beside: Path | None = None

    def __str__(self) -> str:
        return self.out

    @property
    def remote(self) -> ObjectUrl | None:
        """The URL; None for a file."""
        return object_url(self.out) if is_object_url(self.out) else None

    @property
    def local(self) -> Path:
        """The file to write."""
        url = self.remote
        if url is None:
            return Path(self.out)
        own = hashlib.sha256(str(url).encode("utf-8", "surrogatepass")).hexdigest()[:24]
        folder = self.beside or default_folder() / "unfinished" / own
        folder.mkdir(parents=True, exist_ok=True)
        return folder / url.path.rpartition("/")[2]

    def absolute(self) -> Target:
        """Return the same table, also for a process in another folder."""
        return self if self.remote is not None else Target(str(Path(self.out).absolute()), self.beside)

    def of(self, shard: Shard | None) -> Target:
        """Return the table of one part."""
        if shard is None:
            return self
        if self.remote is None:
            return Target(str(shard.path(Path(self.out))), self.beside)
        above, _, name = str(self.remote).rpartition("/")
        return Target(f"{above}/{shard.path(Path(name))}", self.beside)

    def check_absent(self, overwrite: bool) -> None:
        """Raise RunError where there is an object at the URL already."""
        if self.remote is not None and not overwrite and exists(self.out):
            raise RunError(f"{self.out} already exists; give another --out, or --overwrite it")

    def written(self, part: Part, model: str) -> Proof | None:
        """Return the proof of a part's table that is complete; see `shards.written`. `merge` reads a remote table."""
        url = self.remote
        if url is None:
            return written(self.local, part, model)
        try:
            content = Bucket(url.bucket).read(f"{url.path}.shard", self.out, _MOST_PROOF)
            proof = proof_in(content.partition(b"\n")[0])
        except (ImageError, ValueError):
            return None
        return proof if proof.belongs_to(part, model) and exists(self.out) else None

    def publish(self, proof: bool = False) -> None:
        """Put the table where it belongs, and then its proof."""
        if self.remote is None:
            return
        put(self.local, self.out)
        if proof:
            put(proof_path(self.local), f"{self.out}.shard")
        if self.beside is None:
            shutil.rmtree(self.local.parent, ignore_errors=True)

    def merge(self) -> Merged:
        """Put the tables of all parts together; see `shards.merge`."""
        url = self.remote
        if url is None:
            return merge(self.local)
        check_mergeable(Path(self.out))
        bucket, above = Bucket(url.bucket), url.path.rpartition("/")[0]
        with TemporaryDirectory(prefix="visionadapt-") as folder:
            out = Path(folder) / url.path.rpartition("/")[2]
            for item in bucket.listed(above):
                name = item.path[len(above) + 1 if above else 0 :]
                if "/" not in name and name.startswith(f"{out.stem}-") and name.endswith((out.suffix, ".shard")):
                    with (out.parent / name).open("wb") as file:
                        for each in bucket.parts(item.path, f"{url.bucket}/{item.path}", item.etag, item.size):
                            file.write(each)
            merged = merge(out)
            put(out, self.out)
        return merged

    def tidy(self) -> None:
        """Remove what killed processes left of tables that they were writing."""
        if self.remote is None:
            remove_unfinished(self.local.parent)

    def remove(self) -> None:
        """Remove the table and its proof."""
        url = self.remote
        if url is None:
            proof_path(self.local).unlink(missing_ok=True)
            self.local.unlink(missing_ok=True)
            return
        for path in (f"{url.path}.shard", url.path):
            Bucket(url.bucket).delete(path, self.out)
