"""Samples ordered by how suspicious their labels are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """The samples by one criterion.

    Attributes:
        criterion: its name.
        scores: float64 (n,), larger is more suspicious; NaN for a sample without score.
        ranks: int64 (n,), 1 for the most suspicious sample. Equal scores share the smallest of their ranks. Samples
            without a score share the rank after all others.
        order: int64 (n,), positions of the samples, the most suspicious first. Equal scores keep the samples' order.
    """

    criterion: str
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]
    order: NDArray[np.int64]


def ranked(criterion: str, scores: ArrayLike | Tensor) -> Ranking:
    """The ranking by scores (n,), of which larger ones are more suspicious.

    Raises:
        ValueError: scores that are not one number a sample.
    """
    values = np.asarray(scores.detach().cpu().double() if isinstance(scores, Tensor) else scores, np.float64)
    if values.ndim != 1:
        raise ValueError(f"{criterion}: must be scores (n,), got the shape {values.shape}")
    # NaN sorts last; infinite scores are scores
    order = np.argsort(-values, kind="stable")
    sorted_values = values[order]
    is_first = np.ones(len(values), dtype=bool)
    is_same = (sorted_values[1:] == sorted_values[:-1]) | (
        np.isnan(sorted_values[1:]) & np.isnan(sorted_values[:-1])
    )
    is_first[1:] = ~is_same
    places = np.maximum.accumulate(np.where(is_first, np.arange(1, len(values) + 1), 0))
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = places
    return Ranking(criterion, values, ranks, order)
