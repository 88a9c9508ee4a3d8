"""One run: trained, measured, written to its file."""

from analysis.run.one_run import execute

__all__ = ["execute"]
