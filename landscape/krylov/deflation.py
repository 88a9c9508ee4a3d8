"""The known part of an operator, such as eigenvectors that were found before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Deflation:
    """A subspace in which the operator A is known.

    Attributes:
        basis: Q, orthonormal columns (n, q).
        values: diagonal of Q^T A Q, (q,).
        residuals: ||A q - value q||, (q,).
    """

    basis: Tensor
    values: Tensor
    residuals: Tensor

    @classmethod
    def empty(cls, dimension: int, device: torch.device | str = "cpu") -> Deflation:
        """The subspace of dimension 0."""
        empty = torch.zeros(0, dtype=torch.float64, device=device)
        return cls(torch.zeros(dimension, 0, dtype=torch.float64, device=device), empty, empty)
