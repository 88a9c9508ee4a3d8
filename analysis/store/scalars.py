"""A run's numbers for the table of all runs."""

from __future__ import annotations

import json
import math
from typing import Any

import h5py
import numpy as np

from analysis.bound import bound_scalars
from analysis.store.run_file import config_of, identity, metrics_of
from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.probes import GROUPS
from ncsam.training import METRICS, mean_of_defined


def scalars_of(file: h5py.File) -> dict[str, Any]:
    """One row of the table, from an open run file."""
    stored = config_of(file)
    history = metrics_of(file)
    row: dict[str, Any] = identity(stored)
    method = stored["config"]["method"]
    row["method_name"] = method["name"]
    row["loss"] = method["loss"]["name"]
    row["mixup"] = method["mixup"] or 0.0
    row["candidates"] = len(method["candidates"])
    row["diverged"] = bool(stored["diverged"])
    row["epochs"] = int(stored["epochs"])
    row["hyperparameters"] = json.dumps(stored["hyperparameters"], sort_keys=True)
    for name in METRICS:
        row[name] = float(history[name][-1])
    accuracy = history["test_accuracy"]
    best = int(np.where(np.isnan(accuracy), -1.0, accuracy).argmax())
    row["best_test_accuracy"] = float(accuracy[best])
    row["best_epoch"] = best + 1
    probed = [name for name in history if name.startswith("probe_")]
    for name in (*ALIGNMENT_METRICS, "perturbation_norm", *probed):
        # NaN: epochs of the warm-up, batches without wrong labels
        row[f"mean_{name}"] = mean_of_defined(history[name])
    for group in GROUPS if probed else ():
        row[f"mean_probe_damping_{group}"] = mean_log_ratio(
            history[f"probe_perturbed_gradient_{group}"], history[f"probe_gradient_{group}"]
        )
    wrong = file["labels/clean"][()] != file["labels/observed"][()]
    row["realised_noise_rate"] = float(wrong.mean())
    row["classes"] = len(file["labels/transition"])
    for loss in ("observed", "clean"):
        row.update(_measured_scalars(file, loss))
    row.update(bound_scalars(file))
    return row


def mean_log_ratio(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over epochs of log10(first / second), over those in which both are positive.

    Not the ratio of their means: those are of different epochs, as nothing is perturbed in a warm-up.
    """
    both = (first > 0) & (second > 0)
    return mean_of_defined(np.log10(first[both] / second[both]))


def _measured_scalars(file: h5py.File, loss: str) -> dict[str, float]:
    groups = {
        "top_eigenvalue": (f"curvature/{loss}/top_eigenvalues", "values"),
        "top_eigenvalue_residual": (f"curvature/{loss}/top_eigenvalues", "residuals"),
        "top_eigenvalue_converged": (f"curvature/{loss}/top_eigenvalues", "converged"),
        "trace": (f"curvature/{loss}/trace", "value"),
        "trace_standard_error": (f"curvature/{loss}/trace", "standard_error"),
        "trace_converged": (f"curvature/{loss}/trace", "converged"),
        "sharpness": (f"sharpness/{loss}", "value"),
        "sharpness_one_step": (f"sharpness/{loss}", "one_step"),
        "sharpness_rho": (f"sharpness/{loss}", "rho"),
    }
    return {
        f"{name}_{loss}": float(np.ravel(file[f"{group}/{field}"][()])[0]) if group in file else math.nan
        for name, (group, field) in groups.items()
    }
