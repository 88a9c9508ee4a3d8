"""One run: trained, measured, written to its file."""

from analysis.run.context import RunContext
from analysis.run.one_run import execute

__all__ = ["RunContext", "execute"]
