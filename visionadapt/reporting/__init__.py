"""The report of a run: one HTML file that needs neither network nor scripts.

Belongs here: the figures and images of `report.html`, and its template. Not here: computing metrics (`metrics`).
"""

from visionadapt.reporting.page import NAME, write_report

__all__ = ["NAME", "write_report"]


def __dir__() -> list[str]:
    return sorted(__all__)
