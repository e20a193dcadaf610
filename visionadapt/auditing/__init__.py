"""Look a data set over before it is trained on: copies, leaks, wrong labels, broken files, and what resizing does."""

from visionadapt.auditing.audit import Audit, audit
from visionadapt.auditing.equal_files import quick
from visionadapt.auditing.findings import KINDS, AuditFinding
from visionadapt.auditing.output import summary, write_audit

__all__ = ["KINDS", "Audit", "AuditFinding", "audit", "quick", "summary", "write_audit"]
