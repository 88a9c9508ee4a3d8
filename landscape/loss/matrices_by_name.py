"""The matrices of a mean loss by name.

A matrix registers itself with `@matrix_of_loss`, so that an Objective finds the matrix without importing its module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import Tensor

from landscape.operator import Operator


class LossMatrix(Operator, Protocol):
    """An operator of a mean loss at one weight vector. It can prepare for many products."""

    def expect(self, products: int) -> None:
        """Announces a number of products, so that the matrix can prepare work that pays for this number."""

    def of_chunks(
        self, block: Tensor, measure: Callable[[Tensor, Tensor], Tensor], *, columns: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The weight of each chunk (chunks,), and the result of `measure` on its product with a block (n, k)."""

    def of_regularizer(self, block: Tensor) -> Tensor | float:
        """The regularizer's part of the product with a block (n, k). No chunk enters it."""


# Any stands for an Objective, which imports this file
MatrixType = Callable[[Any, Tensor | None], LossMatrix]
"""(objective, theta) -> the matrix at `theta`, or for None at the objective's weights."""

MATRICES: dict[str, MatrixType] = {}
"""Filled by `@matrix_of_loss`."""

M = TypeVar("M", bound=MatrixType)


def matrix_of_loss(name: str) -> Callable[[M], M]:
    """Registers a matrix class under the name that users pass as `matrix=`."""

    def register(cls: M) -> M:
        MATRICES[name] = cls
        return cls

    return register


def matrix_named(name: str, objective: Any, theta: Tensor | None = None) -> LossMatrix:
    """The matrix of this name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in MATRICES:
        raise ValueError(f"matrix: must be one of {', '.join(sorted(MATRICES))}, got {name!r}")
    return MATRICES[name](objective, theta)
