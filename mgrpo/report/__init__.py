"""The report that a run writes about itself: one self-contained page."""

from mgrpo.report.page import write_report

__all__ = ["write_report"]
