"""The ways in which a matrix of one chunk's mean loss is multiplied by vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from landscape.data.task import LossFunction
from landscape.fx.linearize import Outputs, Product

Loss = Callable[[Any], Tensor]
"""The mean loss of one chunk as a function of the model's outputs."""


class Run(Protocol):
    """Runs the model on one chunk. Derivatives are taken within `use`, where the model holds the weights."""

    def __call__(self, theta: Tensor, use: Callable[[Tensor, Any], Tensor]) -> Tensor:
        """Returns `use(variable, outputs)` for the weights (n,) as a variable, and the outputs that depend on it."""


@dataclass(frozen=True)
class ProductSums:
    """Sums of products with vectors. Products are added tensor by tensor, so that no second sum is held.

    Attributes:
        variables: the weights, one leaf tensor for each parameter.
        vectors: the vectors, each as one tensor for each parameter.
        totals: the sum of the products with each vector, in the same form.
    """

    variables: Sequence[Tensor]
    vectors: Sequence[Sequence[Tensor]]
    totals: Sequence[Sequence[Tensor]]


@dataclass(frozen=True)
class Rule:
    """How a matrix of the mean loss of one chunk is multiplied by vectors.

    Attributes:
        direct: (theta, outputs, loss of the outputs) -> (vector -> product). `theta` requires a gradient and `outputs`
            depend on it. All vectors share what is computed before the first product. It works for every model.
        difference: (run, loss of the outputs, theta, step) -> product with the step, from first derivatives at
            theta + step and theta - step. It tells whether second derivatives are right.
        traced: (outputs, loss_fn) -> the product as a pure function, from which a graph is traced.
        in_place: (sums, outputs, loss of the outputs) adds the products with the vectors to their sums: the same as
            `direct` in less memory.
        uses_slopes: whether the matrix is made of the loss's slope in the outputs.
    """

    direct: Callable[[Tensor, Any, Loss], Callable[[Tensor], Tensor]]
    difference: Callable[[Run, Loss, Tensor, Tensor], Tensor]
    traced: Callable[[Outputs, LossFunction], Product]
    in_place: Callable[[ProductSums, Any, Loss], None]
    uses_slopes: bool = False
