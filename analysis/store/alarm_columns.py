"""Columns of the table about alarms: when a number that is measured along training says that memorization begins.

The trace of the Hessian falls while a network learns what its labels have in common. It rises again if the network
then memorizes labels that are wrong. The alarm is the first probe at which the trace has risen, as somebody sees it who
knows neither the true labels nor the rest of the training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RISE = 1.5
"""A number raises the alarm if it is larger than its lowest earlier value by this factor."""
ERRORS = 2.0
"""A trace must also have risen by this many standard errors of the difference."""
LEAST_GROWTH = 0.01
"""By how much, in nat per epoch, the fall of the training loss must have grown: a loss near 0 hardly falls."""
WIDTH = 2 * 1.96
"""The length of a 95% interval, in standard errors."""
ALARMS = ("layer", "trace", "loss")
"""What may raise an alarm: the trace of the block of any weight matrix, the whole trace, the training loss."""

History = Mapping[str, NDArray[np.float64]]
"""Metric -> (epochs,), NaN in epochs in which the metric was not measured."""


@dataclass(frozen=True)
class Series:
    """A number along training.

    Attributes:
        epochs: int (probes,), counted from 1.
        values: (probes,).
        errors: (probes,), standard errors of the values.
    """

    epochs: NDArray[np.int64]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]

    def alarm(self) -> float:
        """The first epoch whose value is above the lowest earlier one, by the factor and the errors; else infinity."""
        lowest = 0
        for place in range(1, len(self.values)):
            value, low = self.values[place], self.values[lowest]
            error = math.hypot(self.errors[place], self.errors[lowest])
            if value > RISE * low and value - low > ERRORS * error:
                return float(self.epochs[place])
            if value < low:
                lowest = place
        return math.inf

    def rise(self) -> float:
        """The decimal logarithm of the largest ratio of a value to an earlier one, at least 0."""
        return float(np.log10(self.values / np.minimum.accumulate(self.values)).max())


def alarm_columns(history: History, matrices: Sequence[str], best_epoch: int) -> dict[str, float]:
    """When alarms were raised, and how far traces rose after their lowest value.

    Args:
        history: the history of a run.
        matrices: names of the weight matrices and kernels.
        best_epoch: the epoch of the best test accuracy, counted from 1.

    Returns:
        NAME_alarm: 1 if an alarm was raised, else 0, for each of the `ALARMS`. The alarm of the layers is the first one
            of any weight matrix.
        NAME_alarm_lead: the number of epochs from the alarm to the best epoch. A run without alarm counts as one whose
            alarm is raised in its last epoch.
        layer_rise, trace_rise: `Series.rise`, that of the layers the largest one of any weight matrix.
        All are NaN if the run was not probed, a trace did not converge, or a number is not positive or not finite.
    """
    found = {name: _series(history, name, matrices) for name in ALARMS}
    columns = {}
    for name, of_name in found.items():
        first = min((series.alarm() for series in of_name), default=math.nan)
        raised = min(first, len(history["train_loss"])) if of_name else math.nan
        columns[f"{name}_alarm"] = float(math.isfinite(first)) if of_name else math.nan
        columns[f"{name}_alarm_lead"] = best_epoch - raised
    for name in ("layer", "trace"):
        columns[f"{name}_rise"] = max((series.rise() for series in found[name]), default=math.nan)
    return columns


def _series(history: History, name: str, matrices: Sequence[str]) -> list[Series]:
    """The series that may raise an alarm of this name; none if one is not known whole."""
    if name == "trace":
        return _probed(history, ["probe_trace_observed"], "probe_trace_converged_observed")
    blocks = [f"probe_trace_of_{matrix}_observed" for matrix in matrices]
    of_blocks = _probed(history, blocks, "probe_layer_traces_converged_observed")
    # the loss is a rival, of which nothing is said where there is nothing to compare
    return _fall_of_loss(history["train_loss"]) if name == "loss" and of_blocks else of_blocks


def _probed(history: History, names: Sequence[str], flag: str) -> list[Series]:
    if flag not in history or not set(names) <= set(history):
        return []
    probed = np.flatnonzero(np.isfinite(history[flag]))
    if len(probed) < 2 or not (history[flag][probed] == 1).all():
        return []
    found = [Series(probed + 1, history[name][probed], _errors(history, name)[probed]) for name in names]
    are_known = all((series.values > 0).all() and np.isfinite(series.errors).all() for series in found)
    return found if are_known else []


def _errors(history: History, name: str) -> NDArray[np.float64]:
    """The standard errors of a probed trace, which has an error or an interval beside it."""
    measure = name.removesuffix("_observed")
    if f"{measure}_error_observed" in history:
        return history[f"{measure}_error_observed"]
    return (history[f"{measure}_high_observed"] - history[f"{measure}_low_observed"]) / WIDTH


def _fall_of_loss(losses: NDArray[np.float64]) -> list[Series]:
    """The fall of the training loss from each epoch to the next, which grows again where memorization begins."""
    falls = -np.diff(losses)
    if len(falls) < 2 or not np.isfinite(falls).all():
        return []
    # so that `ERRORS` errors of a difference are the least growth
    error = LEAST_GROWTH / (ERRORS * math.sqrt(2))
    return [Series(np.arange(2, len(losses) + 1), falls, np.full_like(falls, error))]
