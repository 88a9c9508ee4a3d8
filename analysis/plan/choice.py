"""The hyper-parameters of a final run, and how they were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
