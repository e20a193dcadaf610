"""A pulled manifest as archives: the same rows, labels, groups and bytes, and the same archives every time."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from visionadapt.pull.pull import pull
from visionadapt.pull.shards import write_shards
from visionadapt.sources import FolderSource, ManifestSource, ShardSource
from visionadapt.sources.opening import open_source

Run = Callable[..., tuple[int, str]]


def photos(root: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            for number in range(7):
                path = root / split / kind / f"p{number % 3}-{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.effect_noise((40, 40), number * 9 + 1).save(path)
    shutil.copy(root / "train" / "cat" / "p0-0.png", root / "train" / "cat" / "p0-0.jpg")
    (root / "train" / "cat" / "pipe.png").symlink_to("/nowhere")
    return root


def test_archives_give_the_rows_of_the_manifest(visionadapt: Run, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    pull(FolderSource(folder, group="(p[0-9])-"), out)
    written = write_shards(out, 20_000)
    archives = sorted((out / "shards").iterdir())
    assert len(archives) == written.archives > 4
    assert all(path.stat().st_size <= 20_000 + tarfile.RECORDSIZE for path in archives)
    assert (written.images, written.left_out) == (29, 1)
    manifest = ManifestSource(out)
    assert open_source(str(out / "shards")) == ShardSource(str(out / "shards"))
    source = ShardSource(str(out / "shards"), group="json.group")
    rows = {row.key: row for row in manifest if row.problem is None}
    found = {row.key: row for row in source}
    assert {key: (row.labels, row.group, row.split, row.problem) for key, row in found.items()} == {
        key: (row.labels, row.group, row.split, None) for key, row in rows.items()
    }
    assert all(source.read(row) == manifest.read(rows[key]) for key, row in found.items())
    before = {path.name: path.read_bytes() for path in archives}
    code, output = visionadapt("pull", folder, "--out", out, "--shards", "20KB")
    assert code == 0, output
    write_shards(out, 20_000)
    pull(FolderSource(folder, group="(p[0-9])-"), out)
    write_shards(out, 20_000)
    assert {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())} == before
