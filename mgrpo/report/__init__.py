"""The report that a run writes about itself, and one about several runs: self-contained pages."""

from mgrpo.report.page import write_report
from mgrpo.report.several import write_comparison

__all__ = ["write_comparison", "write_report"]
