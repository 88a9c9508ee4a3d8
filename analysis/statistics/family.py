"""Holm's correction of the p-values of a family."""

from __future__ import annotations

import numpy as np

from analysis.statistics.resampling import Values


def holm(p_values: Values) -> Values:
    """Holm's adjusted p-values. NaN stays NaN and does not count."""
    # statsmodels' multipletests does the same, but collects garbage at every call: 4 s for the claims on 2,000 runs
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[p_values[known].argsort()]
    result = np.full_like(p_values, np.nan)
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    result[order] = np.maximum.accumulate(stepped).clip(max=1)
    return result
