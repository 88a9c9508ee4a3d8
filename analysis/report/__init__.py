"""The report of a study, from its stored results alone: an HTML page, tables and figure files."""

from analysis.report.figure_files import draw_all
from analysis.report.page import write_report

__all__ = ["draw_all", "write_report"]
