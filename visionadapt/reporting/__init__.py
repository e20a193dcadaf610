"""The report of a run: one HTML file that needs no network and no script."""

from visionadapt.reporting.page import NAME, write_report

__all__ = ["NAME", "write_report"]
