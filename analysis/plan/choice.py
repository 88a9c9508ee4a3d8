"""The hyper-parameters that a final run takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """Hyper-parameters for a final run, and what they were chosen from.

    Attributes:
        hyperparameters: those chosen.
        candidates: all that were compared.
        scores: accuracy of each on validation samples with observed labels, mean over the selection's seeds;
            NaN for one that diverged; empty if there was nothing to choose.
        standard_errors: binomial, of the scores.
    """

    hyperparameters: dict[str, Any]
    candidates: list[dict[str, Any]]
    scores: list[float]
    standard_errors: list[float]
