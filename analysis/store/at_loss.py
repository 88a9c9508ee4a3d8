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
"""Levels of the mean cross-entropy with observed labels, in nat, from high to low."""
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


def of_parts(name: str) -> bool:
    """Whether a quantity of `AT_LOSS` is a part of the curvature: all parts of a probe converge together."""
    return name != "sharpness"


def flag_at_loss(name: str, level: float) -> str:
    """The column that says whether a quantity at a level converged. It is NaN in runs that do not pass the level."""
    return f"{'curvature_parts' if of_parts(name) else name}_converged_at_loss_{level:g}"


def columns_at_loss(history: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The columns of `AT_LOSS` at each of the `LOSS_LEVELS`, from the history of one run, and their flags.

    Args:
        history: metric -> (epochs,). A metric is NaN in epochs that were not probed.

    Returns:
        Nothing for a run that was not probed for its loss and the parts of its curvature.
    """
    if "probe_loss_observed" not in history or CONVERGED not in history:
        return {}
    losses = history["probe_loss_observed"]
    found = {}
    for name in AT_LOSS:
        values = history[f"probe_{name}_observed"]
        # a sharpness that did not converge is NaN already
        converged = history[CONVERGED] == 1 if of_parts(name) else np.isfinite(values)
        for level in LOSS_LEVELS:
            found[column_at_loss(name, level)] = value_at_loss(
                losses, np.where(converged, values, math.nan), level
            )
            passing = epochs_beside(losses, level)
            found[flag_at_loss(name, level)] = float(converged[[*passing]].all()) if passing else math.nan
    return found


def epochs_beside(losses: NDArray[np.float64], level: float) -> tuple[int, int] | None:
    """The probed epochs before and after the loss first falls from above a level to the level or below.

    None if the loss lies at or below the level from the first probe on, or never falls to the level.

    Args:
        losses: (epochs,), NaN in epochs that were not probed.
        level: positive.
    """
    probed = np.flatnonzero(np.isfinite(losses))
    below = losses[probed] <= level
    if not below.any() or below[0]:
        return None
    first = int(below.argmax())
    return int(probed[first - 1]), int(probed[first])


def value_at_loss(losses: NDArray[np.float64], values: NDArray[np.float64], level: float) -> float:
    """The value where the loss first falls from above a level to the level or below.

    Between two probed epochs, the logarithm of the value is linear in the logarithm of the loss.

    Args:
        losses: (epochs,), NaN in epochs that were not probed.
        values: (epochs,), positive, or NaN where they are unknown.
        level: positive.

    Returns:
        NaN if the loss does not pass the level (`epochs_beside`), or if the value is unknown at one of the two epochs.
    """
    passing = epochs_beside(losses, level)
    if passing is None:
        return math.nan
    before, after = passing
    pair = np.array([values[before], values[after]])
    if not (pair > 0).all():
        return math.nan
    share = math.log(losses[before] / level) / math.log(losses[before] / losses[after])
    return float(np.exp((1 - share) * np.log(pair[0]) + share * np.log(pair[1])))
