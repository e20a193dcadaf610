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

from visionadapt.sources.api import ApiSource
from visionadapt.sources.bucket import BucketSource
from visionadapt.sources.files import FileSource
from visionadapt.sources.folder import FolderSource
from visionadapt.sources.manifest import ManifestSource
from visionadapt.sources.memory import MemorySource
from visionadapt.sources.shards import ShardSource
from visionadapt.sources.sql import SqlSource
from visionadapt.sources.table import TableSource

__all__ = [
    "ApiSource",
    "BucketSource",
    "FileSource",
    "FolderSource",
    "ManifestSource",
    "MemorySource",
    "ShardSource",
    "SqlSource",
    "TableSource",
]


def __dir__() -> list[str]:
    return sorted(__all__)
