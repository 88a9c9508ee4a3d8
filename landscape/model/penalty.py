"""A regularizer: the part of a loss that depends on the weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.data.task import Regularizer
from landscape.model.derivatives import derivative
from landscape.model.weights import ParameterLayout

STEP = 1e-6
"""Length of a step, relative to the weights, in float64."""

MOST_WEIGHTS = 20_000_000
"""The comparison holds five vectors in float64, and is made for models of at most this many weights."""

REPEATED = 1e-6
"""Two values of one regularizer differ by less than this share, by rounding."""

ALLOWED = 1e-3
"""Largest relative difference between a derivative along a direction and a difference."""


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
            ValueError: the value is no real scalar.
        """
        constants = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        value = self.regularizer({**constants, **self.layout.unflatten(theta)})
        if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
            raise ValueError(f"regularizer: must return a real scalar tensor, got {value!r:.80}")
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

    def check(self, theta: Tensor) -> None:
        """Checks that the regularizer is a function of the weights that torch differentiates rightly.

        Raises:
            ValueError: the regularizer fails, differs from one call to the next, or has another gradient than its own.
        """
        try:
            once, again = self(theta).item(), self(theta).item()
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"regularizer: fails with {type(error).__name__}: {error}; it is called with a dict of the parameters "
                f"by name, such as {self.layout.names[0]!r}"
            ) from error
        if abs(once - again) > REPEATED * abs(once):
            raise ValueError(
                f"regularizer: is {once:.6g} in one call and {again:.6g} in the next, and so would be every number; "
                "take random numbers and counters out of it"
            )
        if len(theta) > MOST_WEIGHTS:
            return
        errors = [self._error_of_gradient(theta, seed) for seed in range(2)]
        if min(errors) > ALLOWED:
            raise ValueError(
                f"regularizer: its gradient is not that of its value: along a direction the two differ by "
                f"{max(errors):.2g} of the gradient; leave out detach(), item() and no_grad() of what depends on the "
                "parameters"
            )

    def _error_of_gradient(self, theta: Tensor, seed: int) -> float:
        """The relative difference between the slope along a direction, near theta, and that of the values."""
        generator = torch.Generator().manual_seed(seed)
        shift, vector = (
            torch.randn(theta.shape, generator=generator, dtype=torch.float64, device="cpu").to(theta.device)
            for _ in range(2)
        )
        size = theta.double().square().mean().sqrt().item() or 1.0
        point, step = theta.double() + 0.01 * size * shift, STEP * size
        try:
            ahead, behind = (self(point + h * vector).item() for h in (step, -step))
            found = (self.gradient(point) @ vector).item()
        except RuntimeError:
            # the regularizer fixes a dtype inside
            return 0.0
        right = (ahead - behind) / (2 * step)
        rounding = 1e3 * torch.finfo(torch.float64).eps * abs(ahead) / step
        distance = abs(found - right)
        return distance / max(abs(found), abs(right)) if distance > rounding else 0.0
