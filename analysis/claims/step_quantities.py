"""The quantities of claims E5 and E6: how long a step may be, and the edge of stability that it sets."""

from __future__ import annotations

import pandas as pd

from analysis.claims.quantities import DECADES, DECADES_MARGIN, REMEASURED, Quantity, log_ratio

CONSTANT_RATE = 'training.schedule = "constant", and `ncsam measure --only noise`'


def reach(
    clean: pd.Series, observed: pd.Series, clean_found: pd.Series, observed_found: pd.Series
) -> pd.Series:
    """The ratio of two critical learning rates, less 1. The critical rate of a loss that rises at once is 0."""
    is_known = ((clean_found == 1) | (clean == 0)) & (observed_found == 1)
    return (clean / observed - 1).where(is_known)


def of_edges() -> dict[str, Quantity]:
    """Name -> quantity."""
    return {
        f"to_{edge}_edge": Quantity(
            f"top eigenvalue, observed labels, to {words} edge of stability",
            ("top_eigenvalue_observed", column),
            DECADES,
            of=log_ratio,
            margin=DECADES_MARGIN,
            needs=CONSTANT_RATE,
        )
        for edge, words, column in (
            ("own", "the method's", "stability_edge"),
            ("descent", "SGD's", "descent_edge"),
        )
    }


REACH = Quantity(
    "step along the observed labels' gradient until the loss with true labels rises, by that until the loss with "
    "observed ones does, less 1",
    (
        *("critical_learning_rate_clean", "critical_learning_rate_observed"),
        *("critical_learning_rate_found_clean", "critical_learning_rate_found_observed"),
    ),
    of=reach,
    margin=0.1,
    needs=REMEASURED,
)
