"""Curvature along a training, at the points where the training loss passes chosen levels.

Runs with more label noise end at a higher training loss. A comparison at equal training loss does not mix the noise
with the progress of the training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LOSS_LEVELS = (*(tenths / 10 for tenths in range(22, 0, -1)), 0.05, 0.02, 0.01)
"""Levels of the mean cross-entropy with observed labels, in nats, from high to low."""
AT_LOSS = (
    "jacobian_trace",
    "jacobian_top",
    "uncertainty",
    "gauss_newton_trace",
    "functional_norm",
    "sharpness",
)
"""Quantities that are read off at each level, all with observed labels."""
CONVERGED = "probe_curvature_parts_converged_observed"


def column_at_loss(name: str, level: float) -> str:
    """The table's column of a quantity at a level of the training loss."""
    return f"{name}_observed_at_loss_{level:g}"


def columns_at_loss(history: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The columns of `AT_LOSS` at each of the `LOSS_LEVELS`, from the history of one run.

    Args:
        history: metric -> (epochs,). A metric is NaN in epochs that were not probed.

    Returns:
        Nothing for a run that was not probed for its loss and the parts of its curvature.
    """
    if "probe_loss_observed" not in history or CONVERGED not in history:
        return {}
    found = {}
    for name in AT_LOSS:
        values = history[f"probe_{name}_observed"]
        if name != "sharpness":
            # a sharpness that did not converge is NaN already
            values = np.where(history[CONVERGED] == 1, values, math.nan)
        for level in LOSS_LEVELS:
            found[column_at_loss(name, level)] = value_at_loss(history["probe_loss_observed"], values, level)
    return found


def value_at_loss(losses: NDArray[np.float64], values: NDArray[np.float64], level: float) -> float:
    """The value where the loss first falls from above a level to the level or below.

    Between two probed epochs, the logarithm of the value is linear in the logarithm of the loss.

    Args:
        losses: (epochs,), NaN in epochs that were not probed.
        values: (epochs,), positive, or NaN where they are unknown.
        level: positive.

    Returns:
        NaN if the loss lies at or below the level from the first probe on, if it never falls to the level, or if the
        value is unknown at one of the two epochs.
    """
    probed = np.flatnonzero(np.isfinite(losses))
    below = losses[probed] <= level
    if not below.any() or below[0]:
        return math.nan
    first = int(below.argmax())
    before, after = probed[first - 1], probed[first]
    pair = np.array([values[before], values[after]])
    if not (pair > 0).all():
        return math.nan
    share = math.log(losses[before] / level) / math.log(losses[before] / losses[after])
    return float(np.exp((1 - share) * np.log(pair[0]) + share * np.log(pair[1])))
