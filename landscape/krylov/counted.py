"""An operator whose products are counted while they are made: the progress of all kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from landscape.operator import Operator, SymmetricOperator, ranks_of
from landscape.progress import Progress, counted


@contextmanager
def counted_products(
    operator: Operator, most: int, progress: Progress | bool | None, title: str
) -> Iterator[SymmetricOperator]:
    """Yields the operator, and tells `progress` of (products spent, most that may be spent).

    Args:
        operator: multiplies.
        most: the budget; the last call says that all is done, with the number of products that were spent.
        progress: called after each product with the products done and the budget; True shows a line on the terminal.
        title: text at the start of that line.
    """
    with counted(most, progress, title, "products") as spend:

        def product(block: Tensor) -> Tensor:
            made = operator @ block
            spend(block[0].numel())
            return made

        yield SymmetricOperator(
            product, operator.dimension, operator.dtype, operator.device, ranks_of(operator)
        )
