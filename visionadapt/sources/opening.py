"""Open the source that `--data` names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from visionadapt.core import spec
from visionadapt.core.records import Source
from visionadapt.errors import SourceError
from visionadapt.sources import FolderSource, TableSource
from visionadapt.sources.tables.readers import SUFFIXES

_SETTINGS = re.compile(r"(?:[\w.:]+|[^\s()]+\.py:[\w.]+)\(")


def open_source(text: str) -> Source:
    """Open an existing folder, or the source that a settings text stands for.

    Raises:
        SourceError: there is no such folder, the text stands for something else, or the source cannot be opened.
        SpecError: the text cannot be read.
    """
    if re.match(r"https?://", text):
        raise SourceError(f"{text} is a URL: give --data 'api({text}, rows=…, image=…, label=…)'")
    kind = SUFFIXES.get(Path(text).suffix.lower())
    if kind is not None and os.path.isfile(text):  # noqa: PTH113
        columns = ", ".join(TableSource(text, image="").columns)
        raise SourceError(
            f"{text} is a table: give --data '{kind}({text}, image=…, label=…)' with its columns ({columns or 'none'})"
        )
    if os.path.exists(text) or not _SETTINGS.match(text):  # noqa: PTH110 - a Path refuses a text longer than a file's name
        return FolderSource(text)
    source: Source = spec.parse(text, "source", allow_import=True)
    missing = [name for name in ("classes", "__iter__", "read") if name not in dir(source)]
    if missing:
        raise SourceError(f"{text}: {type(source).__name__} is no source, for it has no {' and no '.join(missing)}")
    return source
