"""Bootstrap intervals by SciPy, with what to do where BCa has no answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 4999
PERMUTATIONS = 4999

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


def bootstrap_interval(
    samples: Sequence[Indices | Values], statistic: Callable[..., Values], seed: int
) -> tuple[float, float]:
    """BCa interval; the percentile interval where all of BCa's resamples agree; NaN for samples of one."""
    if any(len(sample) < 2 for sample in samples):
        return np.nan, np.nan

    def interval(method: str) -> tuple[float, float]:
        result = scipy.stats.bootstrap(
            tuple(samples),
            statistic,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=500,
            method=method,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        return float(result.low), float(result.high)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        low, high = interval("BCa")
        return (low, high) if np.isfinite([low, high]).all() else interval("percentile")
