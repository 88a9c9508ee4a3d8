"""The share of failures of something that may fail only with a small probability."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from analysis.statistics.finding import THESE, Finding, Test, no_population, nothing_found
from analysis.statistics.student import CONFIDENCE

FACTOR = math.e
"""Factor of Bentkus (2004, Annals of Probability 32): the tail of a sum of n independent values in [0, 1] with a mean
of at most p is at most e times the tail of n Bernoulli draws."""


def failing_share(draws: ArrayLike, cells: ArrayLike, fails: ArrayLike, *, allowed: float) -> Finding:
    """The share of runs that fail, with an exact interval, compared with the allowed share.

    Runs on one draw of data and labels depend on each other, so draws are the units. The tests are valid for any
    dependence within a draw. A share above the allowed one is found from the sum over draws of the share of failing
    runs. A share below it is found from the number of draws in which any run fails: if runs fail with probability p, a
    draw holds a failure with a probability of at least p. The answer is about these cells: their draws are independent,
    but say nothing of other data and noise, where runs may fail more often.

    Args:
        draws: the draw of each run.
        cells: the cell of each run.
        fails: 1 or 0 for each run; NaN if a run has no number. Such runs are lost.
        allowed: the share that may fail.
    """
    runs = pd.DataFrame({"draw": np.asarray(draws).astype(str), "cell": np.asarray(cells).astype(str)})
    runs["fails"] = np.asarray(fails, dtype=np.float64)
    lost = int(runs["fails"].isna().sum())
    runs = runs.dropna()
    if runs.empty:
        return nothing_found("too few draws", 0, "draws", lost)
    by_draw = runs.groupby("draw")["fails"]
    shares = by_draw.mean()
    count, failed = len(shares), int((shares > 0).sum())
    least = math.floor(float(shares.sum()) + 1e-9)
    factor = 1.0 if by_draw.size().max() == 1 else FACTOR
    above = min(1.0, factor * float(scipy.stats.binom.sf(least - 1, count, allowed)))
    below = float(scipy.stats.binom.cdf(failed, count, allowed))
    tail = (1 - CONFIDENCE) / 2
    beta = scipy.stats.beta
    low = float(beta.ppf(tail / factor, least, count - least + 1)) if least else 0.0
    high = float(beta.ppf(1 - tail, failed + 1, count - failed)) if failed < count else 1.0
    these = Test(
        THESE,
        float(shares.mean()),
        low=low,
        high=high,
        p_value=min(1.0, 2 * min(above, below)),
        method="exact binomial test of draws",
        units=count,
        counted="draws",
        smallest_p=2 * min((1 - allowed) ** count, factor * allowed**count),
    )
    return Finding(these, no_population(these), runs["cell"].nunique(), lost=lost)
