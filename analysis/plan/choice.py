"""The hyper-parameters of a final run, and how they were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OF_LOSS = "loss."
"""Begins the names of hyper-parameters that are options of the loss: `loss.sigma`."""


def method_part(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """The options of the method among hyper-parameters."""
    return {name: value for name, value in hyperparameters.items() if not name.startswith(OF_LOSS)}


def loss_part(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """The options of the loss among hyper-parameters, by their names in the loss."""
    return {
        name.removeprefix(OF_LOSS): value
        for name, value in hyperparameters.items()
        if name.startswith(OF_LOSS)
    }


@dataclass(frozen=True)
class Choice:
    """Hyper-parameters for a final run, and the candidates from which they were chosen.

    Attributes:
        hyperparameters: the chosen hyper-parameters.
        candidates: all candidates that were compared.
        scores: accuracy of each candidate on validation samples with observed labels, mean over the seeds of the
            selection. NaN for a candidate that diverged; empty if there was nothing to choose.
        standard_errors: binomial standard errors of the scores.
    """

    hyperparameters: dict[str, Any]
    candidates: list[dict[str, Any]]
    scores: list[float]
    standard_errors: list[float]
