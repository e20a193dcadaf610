"""The report of a run: one HTML file that needs neither network nor scripts.

Belongs here: the figures and images of `report.html`, and its template. Not here: computing metrics (`metrics`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionadapt.report.page import NAME as NAME
    from visionadapt.report.page import write_report as write_report

__all__ = ["NAME", "write_report"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in __all__:
            from visionadapt.report import page

            return getattr(page, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
