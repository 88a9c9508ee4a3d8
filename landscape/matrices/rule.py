"""The two ways in which a matrix of one chunk's mean loss is multiplied by vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from landscape.fx.linearize import Outputs, Product
from landscape.loss.objective import LossFunction


@dataclass(frozen=True)
class Rule:
    """How a matrix of the mean loss of one chunk is multiplied by vectors.

    Attributes:
        direct: (theta, outputs, loss of the outputs) -> (vector -> product). `theta` requires a gradient and `outputs`
            depend on it. All vectors share what is computed before the first. Holds for every model.
        traced: (outputs, loss_fn) -> the product as a pure function, from which a graph is traced.
    """

    direct: Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]
    traced: Callable[[Outputs, LossFunction], Product]
