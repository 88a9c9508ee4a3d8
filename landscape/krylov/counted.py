"""An operator whose products are counted while they are made: the progress of all kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from landscape.operator import Operator
from landscape.progress import Progress, counted


class CountedOperator:
    """An operator whose products are counted.

    Args:
        operator: multiplies.
        spend: called with the number of vectors after each product.
    """

    def __init__(self, operator: Operator, spend: Callable[[int], None]) -> None:
        self._operator, self._spend = operator, spend

    @property
    def dimension(self) -> int:
        """That of the operator."""
        return self._operator.dimension

    @property
    def dtype(self) -> torch.dtype:
        """That of the operator."""
        return self._operator.dtype

    @property
    def device(self) -> torch.device:
        """That of the operator."""
        return self._operator.device

    def __matmul__(self, block: Tensor) -> Tensor:
        """The operator times the block."""
        product = self._operator @ block
        self._spend(block[0].numel())
        return product


@contextmanager
def counted_products(
    operator: Operator, most: int, progress: Progress | bool | None, title: str
) -> Iterator[CountedOperator]:
    """Yields the operator, and tells `progress` of (products spent, most that may be spent).

    Args:
        operator: multiplies.
        most: the budget; the last call says that all is done, with the number of products that were spent.
        progress: called so; True writes a line on the terminal.
        title: of that line.
    """
    with counted(most, progress, title, "products") as spend:
        yield CountedOperator(operator, spend)
