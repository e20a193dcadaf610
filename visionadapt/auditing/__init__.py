"""Inspect a data set before training: duplicates, leaks, labels worth checking, broken files, and effects of resizing.

Belongs here: findings about rows and files, and the page that lists them. Not here: anything that trains an adapter.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionadapt.auditing.auditor import Audit, audit, scan_shard
    from visionadapt.auditing.equal_files import quick
    from visionadapt.auditing.findings import KINDS, AuditFinding
    from visionadapt.auditing.output import summary, write_audit
    from visionadapt.auditing.settings import AuditSettings

_HOME = {
    "Audit": "auditor",
    "AuditFinding": "findings",
    "AuditSettings": "settings",
    "KINDS": "findings",
    "audit": "auditor",
    "quick": "equal_files",
    "scan_shard": "auditor",
    "summary": "output",
    "write_audit": "output",
}

__all__ = ["KINDS", "Audit", "AuditFinding", "AuditSettings", "audit", "quick", "scan_shard", "summary", "write_audit"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
