"""A regularizer: the part of a loss that depends on the weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.loss.derivatives import derivative
from landscape.loss.task import Regularizer
from landscape.loss.weights import ParameterLayout


@dataclass(frozen=True)
class Penalty:
    """A regularizer as a function of the measured weights. The model's other parameters are held constant.

    Attributes:
        regularizer: {name: parameter} -> a scalar.
        model: the model that holds the constants.
        layout: names and shapes of the measured weights.
    """

    regularizer: Regularizer
    model: nn.Module
    layout: ParameterLayout

    def __call__(self, theta: Tensor) -> Tensor:
        """The regularizer at `theta` (n,), a scalar.

        Raises:
            ValueError: the value is no scalar.
        """
        constants = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        value = self.regularizer({**constants, **self.layout.unflatten(theta)})
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"regularizer: must return a scalar tensor, got {value!r:.80}")
        return value.reshape(())

    @torch.enable_grad()
    def gradient(self, theta: Tensor) -> Tensor:
        """The gradient (n,) of the regularizer."""
        variable = theta.detach().requires_grad_()
        return derivative(self(variable), variable)

    @torch.enable_grad()
    def product(self, theta: Tensor, block: Tensor) -> Tensor:
        """The Hessian of the regularizer times a block of vectors (n, k)."""
        variable = theta.detach().requires_grad_()
        slope = derivative(self(variable), variable, create_graph=True)
        columns = [derivative(slope @ column, variable, retain_graph=True) for column in block.T]
        return torch.stack(columns, 1)
