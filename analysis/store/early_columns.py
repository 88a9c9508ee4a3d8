"""Columns of the table about the early training: what is learned first, and how curved the loss is then."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ncsam.epoch import mean_of_defined

EARLY_SHARE = 0.1
"""Share of a training's epochs that count as early, at least one epoch."""
FITTED = 0.875
"""The share of rightly labeled samples that two methods have both fitted when their memorization is compared."""
CONVERGED = "probe_trace_converged_observed"


def early_columns(history: Mapping[str, NDArray[np.float64]], wrong: float) -> dict[str, float]:
    """Means over the early epochs, and the wrong labels that are memorized when enough right labels are fitted.

    Args:
        history: metric -> (epochs,), NaN in epochs in which a metric was not measured.
        wrong: share of wrong labels in the training set.

    Returns:
        early_memorized, early_fitted, early_recovered, early_train_loss: means over the early epochs, after each of
            which the whole training set is judged. Fitted is the share of rightly labeled samples predicted as their
            label, recovered that of wrongly labeled ones predicted as their true label.
        memorized_at_fit: share of wrong labels memorized where `FITTED` is first reached.
        early_trace, early_trace_converged: trace of the Hessian with observed labels at the last early probe.
    """
    memorized, recovered = history["memorized"], history["recovered"]
    fitted = history["train_clean_accuracy"]
    if wrong > 0:
        fitted = (
            (fitted - wrong * recovered) / (1 - wrong) if wrong < 1 else np.full_like(recovered, math.nan)
        )
    early = slice(0, max(1, math.ceil(EARLY_SHARE * len(fitted))))
    return {
        "early_memorized": mean_of_defined(memorized[early]),
        "early_fitted": mean_of_defined(fitted[early]),
        "early_recovered": mean_of_defined(recovered[early]),
        "early_train_loss": mean_of_defined(history["train_loss"][early]),
        "memorized_at_fit": _where_first_reached(fitted, memorized, FITTED),
        **_early_trace(history, early),
    }


def _where_first_reached(rising: NDArray[np.float64], values: NDArray[np.float64], level: float) -> float:
    """The value, linear between epochs, where another number first reaches a level.

    NaN if the level is never reached, or in the first epoch: nothing is known of the weights before it.
    """
    reached = rising >= level
    after = int(reached.argmax())
    if after == 0:
        return math.nan
    share = (level - rising[after - 1]) / (rising[after] - rising[after - 1])
    return float((1 - share) * values[after - 1] + share * values[after])


def _early_trace(history: Mapping[str, NDArray[np.float64]], early: slice) -> dict[str, float]:
    names = {"early_trace": "probe_trace_observed", "early_trace_converged": CONVERGED}
    probed = np.flatnonzero(np.isfinite(history[CONVERGED][early] if CONVERGED in history else np.empty(0)))
    return {
        name: float(history[probe][probed[-1]]) if len(probed) else math.nan for name, probe in names.items()
    }
