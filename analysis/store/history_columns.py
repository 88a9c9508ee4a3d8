"""Columns of the table that come from the history of a run's training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from analysis.store.at_loss import columns_at_loss
from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.epoch import mean_of_defined
from ncsam.probes import GROUPS
from ncsam.training import METRICS

EIGENVALUE_TOL = 0.1
"""The residual, relative to the eigenvalue, with which a probe's search for the top eigenvalue has converged. The error
of the eigenvalue is of second order in the residual."""


def history_columns(history: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Metrics of the last and the best epoch, and means over training.

    Args:
        history: metric -> (epochs,), NaN where a metric was not measured or has no value.
    """
    row = {name: float(history[name][-1]) for name in METRICS}
    accuracy = history["test_accuracy"]
    best = int(np.where(np.isnan(accuracy), -1.0, accuracy).argmax())
    row["best_test_accuracy"] = float(accuracy[best])
    row["best_epoch"] = best + 1
    # NaN without wrong labels
    row["best_recovered"] = float(np.fmax.reduce(history["recovered"]))
    probed = [name for name in history if name.startswith("probe_")]
    for name in (*ALIGNMENT_METRICS, "perturbation_norm", *probed):
        # NaN stands for epochs of the warm-up and for batches without wrong labels
        row[f"mean_{name}"] = mean_of_defined(history[name])
    for loss in ("observed", "clean"):
        row |= _convergence_of_probes(history, loss)
    for group in GROUPS if probed else ():
        row[f"mean_probe_damping_{group}"] = mean_log_ratio(
            history[f"probe_perturbed_gradient_{group}"], history[f"probe_gradient_{group}"]
        )
    return row | columns_at_loss(history)


def _convergence_of_probes(history: Mapping[str, NDArray[np.float64]], loss: str) -> dict[str, float]:
    """The share of the probed epochs whose sharpness and top eigenvalue converged, where no metric says so itself."""
    eigenvalue, residual = (
        history.get(f"probe_top_eigenvalue{part}_{loss}", np.empty(0)) for part in ("", "_residual")
    )
    looks = np.isfinite(eigenvalue)
    shares = {}
    if f"probe_top_eigenvalue_converged_{loss}" not in history and looks.any():
        is_known = residual[looks] <= EIGENVALUE_TOL * np.abs(eigenvalue[looks])
        shares[f"mean_probe_top_eigenvalue_converged_{loss}"] = float(is_known.mean())
    if looks.any() and f"probe_sharpness_{loss}" in history:
        # a sharpness that did not converge is NaN
        known = np.isfinite(history[f"probe_sharpness_{loss}"][looks])
        shares[f"mean_probe_sharpness_converged_{loss}"] = float(known.mean())
    return shares


def mean_log_ratio(first: np.ndarray, second: np.ndarray) -> float:
    """The mean of log10(first / second) over the epochs in which both are positive.

    The ratio of the two means would mix different epochs, because nothing is perturbed in a warm-up.
    """
    both = (first > 0) & (second > 0)
    return mean_of_defined(np.log10(first[both] / second[both]))
