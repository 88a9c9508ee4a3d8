"""The mean over the numbers that are defined."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def mean_of_defined(values: ArrayLike) -> float:
    """The mean of the values that are not NaN; NaN if all are."""
    numbers = np.asarray(values, dtype=np.float64)
    defined = numbers[~np.isnan(numbers)]
    return float(defined.mean()) if len(defined) else float("nan")
