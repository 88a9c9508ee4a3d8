"""A symmetric operator: what kernels take (`landscape.krylov`), and what matrices are (`landscape.matrices`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Operator(Protocol):
    """A symmetric linear map of an n-dimensional space, known by its products.

    `landscape.matrices.hessian.Hessian` is one, and so is any class with these four members.
    """

    @property
    def dimension(self) -> int:
        """n."""

    @property
    def dtype(self) -> torch.dtype:
        """In which products are computed. Their rounding enters the errors of all results."""

    @property
    def device(self) -> torch.device:
        """Of the vectors."""

    def __matmul__(self, block: Tensor) -> Tensor:
        """The operator times a block of vectors (n, k) in float64; the result (n, k) may have another dtype."""


@dataclass(frozen=True)
class SymmetricOperator:
    """An operator made of a function.

    Attributes:
        product: (n, k) -> (n, k), linear and symmetric.
        dimension: n.
        dtype: in which `product` computes.
        device: on which `product` computes.
    """

    product: Callable[[Tensor], Tensor]
    dimension: int
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")

    @classmethod
    def of_matrix(cls, matrix: Tensor) -> SymmetricOperator:
        """The operator of a dense symmetric matrix (n, n)."""
        return cls(lambda block: matrix @ block.to(matrix.dtype), len(matrix), matrix.dtype, matrix.device)

    def __matmul__(self, block: Tensor) -> Tensor:
        """`product` of the block."""
        return self.product(block)
