"""Where images and labels come from: each source yields the same `Record`s and reads their bytes.

One file per source, named as in `--data`: `folder.py`, `bucket.py` (object storage), `shards.py` (tar and zip),
`files.py`, `table.py` (CSV, TSV, JSON, Parquet, Arrow), `sql.py`, `api.py` (JSON over HTTP), `manifest.py` (what
`visionadapt pull` writes); and `memory.py` (DataFrames, Arrow tables and lists, only in Python). A new kind of source
(a key-value store) is one more such file, plus its name in `core/spec.py`.

- `opening.py`: from the spec in `--data`, or any rows in Python, to a source. `hub.py`: data sets on the Hugging Face
  hub, which the sources of folders, tables and archives download. `tabular.py`: the label, group and split columns that
  the table, memory, SQL and API sources share. `walk.py`: the files below a folder. `arguments.py`: checks of
  constructor arguments.
- `tables/`: rows of table files, and the file paths in them. `database/`: SQL. `web/`: HTTP. `objects/`: object
  storage. `archives/`: tar and zip. `pulled/`: the packed rows of a manifest.

Not here: decoding images (`images/`), assigning rows to splits (`data/`), downloading a source (`pull/`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionadapt.sources.api import ApiSource as ApiSource
    from visionadapt.sources.bucket import BucketSource as BucketSource
    from visionadapt.sources.files import FileSource as FileSource
    from visionadapt.sources.folder import FolderSource as FolderSource
    from visionadapt.sources.manifest import ManifestSource as ManifestSource
    from visionadapt.sources.memory import MemorySource as MemorySource
    from visionadapt.sources.shards import ShardSource as ShardSource
    from visionadapt.sources.sql import SqlSource as SqlSource
    from visionadapt.sources.table import TableSource as TableSource

_HOME = {
    "ApiSource": "api",
    "BucketSource": "bucket",
    "FileSource": "files",
    "FolderSource": "folder",
    "ManifestSource": "manifest",
    "MemorySource": "memory",
    "ShardSource": "shards",
    "SqlSource": "sql",
    "TableSource": "table",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
