"""The gradient of a loss, summed over the chunks of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.allocator import give_back_freed_memory
from landscape.data.reading import Chunks
from landscape.data.task import LossFunction
from landscape.model.derivatives import add_derivative, derivative
from landscape.model.weights import ParameterLayout, with_weights


@dataclass(frozen=True)
class Gradients:
    """Sums of the losses of chunks by their weights, and their gradients.

    Attributes:
        model: in evaluation mode.
        layout: of its variables.
        run: (model, inputs) -> outputs.
        loss_fn: (outputs, targets) -> mean loss.
        chunks: of the data.
    """

    model: nn.Module
    layout: ParameterLayout
    run: Callable[[nn.Module, Any], Any]
    loss_fn: LossFunction
    chunks: Chunks

    def of_batch(self, theta: Tensor, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and its gradient (n,)."""
        variable = theta.detach().requires_grad_()

        def differentiated(model: nn.Module) -> tuple[Tensor, Tensor]:
            loss = self.loss_fn(self.run(model, inputs), targets)
            return loss.detach(), derivative(loss, variable)

        return with_weights(self.model, self.layout.unflatten(variable), differentiated)

    def in_float64(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the gradient (n,), summed in float64."""
        loss, total = (
            theta.new_zeros((), dtype=torch.float64),
            theta.new_zeros(len(theta), dtype=torch.float64),
        )
        for chunk in self.chunks:
            if chunk.weight:
                found, gradient = self.of_batch(theta, *chunk.read())
                total += gradient * chunk.weight
                loss += found * chunk.weight
        return loss, total

    def in_place(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The same, the gradient summed in the weights' own precision, or float32: only this sum is as long as they."""
        loss = theta.new_zeros((), dtype=torch.float64)
        total = torch.zeros_like(theta, dtype=torch.promote_types(theta.dtype, torch.float32))
        variables, totals = self.layout.variables(theta), list(self.layout.unflatten(total).values())
        for chunk in self.chunks:
            if chunk.weight:
                inputs, targets = chunk.read()
                weight = chunk.weight

                def differentiated(
                    model: nn.Module, inputs: Any = inputs, targets: Any = targets, weight: float = weight
                ) -> Tensor:
                    found = self.loss_fn(self.run(model, inputs), targets)
                    add_derivative([found * weight], list(variables.values()), totals)
                    return found.detach()

                loss += with_weights(self.model, variables, differentiated) * weight
        give_back_freed_memory(total)
        return loss, total
