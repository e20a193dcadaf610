"""Where pictures and labels come from: each source yields the same `Record`s and reads their bytes."""

from visionadapt.sources.api import ApiSource
from visionadapt.sources.files import FileSource
from visionadapt.sources.folder import FolderSource
from visionadapt.sources.manifest import ManifestSource
from visionadapt.sources.sql import SqlSource
from visionadapt.sources.table import TableSource

__all__ = ["ApiSource", "FileSource", "FolderSource", "ManifestSource", "SqlSource", "TableSource"]
