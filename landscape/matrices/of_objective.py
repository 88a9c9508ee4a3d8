"""The base of all matrices of a mean loss: weights, size, dtype and device."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.objective import Objective


class MatrixOfObjective:
    """A symmetric matrix (n, n) of an objective's mean loss at one weight vector.

    Args:
        objective: its mean loss has this matrix.
        theta: the weights (n,); those of the objective if not given.
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
        """The dtype in which products are computed."""
        return self._objective.dtype

    @property
    def device(self) -> torch.device:
        """The device on which products are computed."""
        return self._objective.device
