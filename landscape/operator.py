"""A symmetric operator. Kernels (`landscape.krylov`) take one, and each matrix (`landscape.matrices`) is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from landscape.ranks import ALONE, Ranks


class Operator(Protocol):
    """A symmetric linear map of an n-dimensional space, known by its products.

    `landscape.matrices.hessian.Hessian` is one, and so is any class with these members. An operator whose vectors are
    shared out over processes has `ranks` too (`landscape.ranks.Ranks`).
    """

    @property
    def dimension(self) -> int:
        """The dimension n."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which products are computed. Its rounding is a part of the errors of all results."""

    @property
    def device(self) -> torch.device:
        """The device of the vectors."""

    def __matmul__(self, block: Tensor) -> Tensor:
        """The operator times a block of vectors (n, k) in float64; the result (n, k) may have another dtype."""


def ranks_of(operator: Operator) -> Ranks:
    """The processes that multiply together; `ALONE` for one that holds all entries of its vectors."""
    ranks: Ranks = getattr(operator, "ranks", ALONE)
    return ranks


@dataclass(frozen=True)
class SymmetricOperator:
    """An operator made from a function.

    Attributes:
        product: (n, k) -> (n, k), linear and symmetric.
        dimension: the dimension n.
        dtype: dtype in which `product` computes.
        device: device on which `product` computes.
        ranks: the processes that multiply together.
    """

    product: Callable[[Tensor], Tensor]
    dimension: int
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")
    ranks: Ranks = ALONE

    @classmethod
    def of_matrix(cls, matrix: Tensor) -> SymmetricOperator:
        """The operator of a dense symmetric matrix (n, n)."""
        return cls(lambda block: matrix @ block.to(matrix.dtype), len(matrix), matrix.dtype, matrix.device)

    def __matmul__(self, block: Tensor) -> Tensor:
        """`product` of the block."""
        return self.product(block)
