"""A digest of how the columns of the table are computed, by which an index knows whether it is up to date."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from analysis import bound
from analysis.store import (
    alarm_columns,
    at_loss,
    early_columns,
    history_columns,
    row,
    sample_columns,
    stability_edge,
    weight_columns,
)

DEFINING = (
    *(row, alarm_columns, at_loss, early_columns, history_columns, sample_columns, stability_edge),
    *(weight_columns, bound),
)
"""The modules that turn the content of a run file into columns."""


@functools.cache
def definitions() -> str:
    """SHA-256 of the text of these modules.

    It also changes with a comment. Then an index is made anew once without need, which takes seconds. A number that
    somebody has to raise by hand would be forgotten.
    """
    found = hashlib.sha256()
    for module in DEFINING:
        assert module.__file__ is not None
        found.update(Path(module.__file__).read_bytes())
    return found.hexdigest()
