"""Columns of the table that say how well measures of single samples tell wrong labels from right ones."""

from __future__ import annotations

import math

import h5py

from ncsam.detection.separation import auroc, auroc_at_equal_loss

OF_SAMPLES = ("gradient_norm", "gauss_newton_trace", "input_curvature")
"""Measures of single samples."""


def sample_columns(file: h5py.File) -> dict[str, float]:
    """The areas under the curve of each measure and of the loss, and of each measure at equal loss.

    All are NaN in a run whose samples were not measured.
    """
    names = [f"{name}{suffix}" for name in OF_SAMPLES for suffix in ("_auroc", "_auroc_at_equal_loss")]
    columns = dict.fromkeys(["loss_auroc", *names], math.nan)
    if "samples/observed" not in file:
        return columns
    which = file["measured_samples/train"][()]
    is_wrong = (file["labels/clean"][()] != file["labels/observed"][()])[which]
    loss = file["samples/observed/loss"][()]
    columns["loss_auroc"] = auroc(loss, is_wrong)
    for name in OF_SAMPLES:
        scores = file[f"samples/observed/{name}"][()]
        columns[f"{name}_auroc"] = auroc(scores, is_wrong)
        columns[f"{name}_auroc_at_equal_loss"] = auroc_at_equal_loss(scores, is_wrong, loss)
    return columns
