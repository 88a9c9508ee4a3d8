"""The ways in which a matrix of one chunk's mean loss is multiplied by vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from landscape.fx.linearize import Outputs, Product
from landscape.loss.task import LossFunction

Loss = Callable[[Any], Tensor]
"""The mean loss of one chunk as a function of the model's outputs."""


class Run(Protocol):
    """Runs the model on one chunk. Derivatives are taken within `use`, where the model holds the weights."""

    def __call__(self, theta: Tensor, use: Callable[[Tensor, Any], Tensor]) -> Tensor:
        """Returns `use(variable, outputs)` for the weights (n,) as a variable, and the outputs that depend on it."""


class AddProducts(Protocol):
    """Adds the products of a matrix with vectors to totals, tensor by tensor, so that no second total is held."""

    def __call__(
        self,
        variables: Sequence[Tensor],
        outputs: Any,
        loss: Loss,
        vectors: Sequence[Sequence[Tensor]],
        totals: Sequence[Sequence[Tensor]],
    ) -> None:
        """`variables` are leaves, one a parameter; each vector and each total is a tensor a parameter."""


@dataclass(frozen=True)
class Rule:
    """How a matrix of the mean loss of one chunk is multiplied by vectors.

    Attributes:
        direct: (theta, outputs, loss of the outputs) -> (vector -> product). `theta` requires a gradient and `outputs`
            depend on it. All vectors share what is computed before the first product. It works for every model.
        difference: (run, loss of the outputs, theta, step) -> product with the step, from first derivatives at
            theta + step and theta - step. It tells whether second derivatives are right.
        traced: (outputs, loss_fn) -> the product as a pure function, from which a graph is traced.
        in_place: adds the products with vectors to totals: the same as `direct` in less memory.
    """

    direct: Callable[[Tensor, Any, Loss], Callable[[Tensor], Tensor]]
    difference: Callable[[Run, Loss, Tensor, Tensor], Tensor]
    traced: Callable[[Outputs, LossFunction], Product]
    in_place: AddProducts
