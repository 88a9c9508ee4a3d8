"""What all matrices of a mean loss have in common: where they are taken, their size, their dtype and their device."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.objective import Objective


class MatrixOfObjective:
    """A symmetric matrix (n, n) of an objective's mean loss at one weight vector.

    Args:
        objective: whose mean loss.
        theta: the weights (n,); the objective's own if not given.
    """

    def __init__(self, objective: Objective, theta: Tensor | None = None) -> None:
        self._objective = objective
        self._theta = objective.point(theta)

    @property
    def dimension(self) -> int:
        """The number n of weights."""
        return self._objective.n_parameters

    @property
    def dtype(self) -> torch.dtype:
        """In which products are computed."""
        return self._objective.dtype

    @property
    def device(self) -> torch.device:
        """On which products are computed."""
        return self._objective.device
