"""The folder in which the user's caches are."""

from __future__ import annotations

import os
from pathlib import Path


def default_folder() -> Path:
    """Return `$VISIONADAPT_CACHE`, or `visionadapt` in the user's cache folder."""
    own = os.environ.get("VISIONADAPT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{base}/visionadapt").expanduser()
