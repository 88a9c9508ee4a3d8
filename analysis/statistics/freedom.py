"""Degrees of freedom of a standard error that several variances share."""

from __future__ import annotations

import numpy as np
import scipy

from analysis.statistics.resampling import Values

LUCK = 0.10
"""The chance that a variance is found as small as the one that is taken for each in turn."""


def shared_freedom(shares: Values, freedoms: Values) -> float:
    """The degrees of freedom of the square root of a sum of variances, each found with degrees of freedom of its own.

    Satterthwaite's formula (1946) takes the shares for the true ones. The few seeds of a cell often have a far smaller
    spread than its next seeds would have; the formula then counts the freedom of the other cells, and verdicts about
    these cells are false in up to 15%, and under Holm's correction, which looks at smaller p-values, in up to 38% of
    families. So the formula is taken as often as there are shares, each time with one of them raised to its upper 90%
    bound, and the fewest degrees count. `docs/verdict-errors.md` says how often verdicts are then false, and the cost.

    Args:
        shares: float64 (n,), the variances' parts of the sum; finite, not all 0.
        freedoms: float64 (n,), their degrees of freedom, 1 or more.
    """
    shares = shares / shares.max()
    raised = np.tile(shares, (len(shares), 1))
    np.fill_diagonal(raised, shares * freedoms / scipy.stats.chi2.ppf(LUCK, freedoms))
    found = raised.sum(1) ** 2 / (raised**2 / freedoms).sum(1)
    return float(np.clip(found.min(), 1.0, freedoms.sum()))
