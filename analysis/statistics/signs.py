"""Sign matrices: for each pair of methods, the sign of the difference of their values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.resampling import Indices, Values


def sign_matrices(values: Values) -> Values:
    """The sign of each difference within a stratum. (strata, n) -> (strata, n, n)."""
    return np.sign(values[:, :, None] - values[:, None, :])


def reordered(matrices: NDArray[Any], order: Indices) -> NDArray[Any]:
    """Rows and columns of (strata, n, n) in each of the orders (..., n). -> (..., strata, n, n)."""
    return np.moveaxis(matrices[:, order[..., :, None], order[..., None, :]], 0, -3)
