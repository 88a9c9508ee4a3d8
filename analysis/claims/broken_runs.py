"""Which runs diverged or failed, so that none of their numbers counts."""

from __future__ import annotations

import numpy as np
import pandas as pd


def broke(table: pd.DataFrame) -> pd.Series:
    """Whether each run diverged or failed, so that none of its numbers counts."""
    return marked(table, "diverged") | marked(table, "failed")


def marked(table: pd.DataFrame, name: str) -> pd.Series:
    """Whether each run has a mark, such as `failed`. A table without the column marks none."""
    if name not in table:
        return pd.Series(False, index=table.index)
    marks = table[name]
    return marks if marks.dtype == np.bool_ else marks.fillna(False).astype(bool)
