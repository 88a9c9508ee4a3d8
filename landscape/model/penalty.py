"""A regularizer: the part of a loss that depends on the weights alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.task import Regularizer
from landscape.model.derivatives import derivative
from landscape.model.long_vectors import norm
from landscape.model.settled import AT_ZERO, DRAWS_AT_KINKS, Vector, error_beyond_differences
from landscape.model.weights import ParameterLayout

STEP = 1e-6
"""Length of a step, relative to the weights, in float64."""

MOST_WEIGHTS = 20_000_000
"""The comparisons hold some ten vectors in float64, and are made for models of at most this many weights."""

EPS = torch.finfo(torch.float64).eps

REPEATED = 1e-6
"""Two values of one regularizer differ by less than this share, by rounding."""

NEAR, AT = (0.01, 2), (0.0, DRAWS_AT_KINKS)
"""How far from the weights derivatives are compared, relative to them, and the number of draws that must differ."""


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
        for place in (NEAR, AT):
            if wrong_by := self._largest_error(_slopes, theta, *place):
                raise ValueError(
                    f"regularizer: its gradient is not that of its value: along a direction the two differ by "
                    f"{wrong_by:.2g} of the gradient; leave out detach(), item() and no_grad() of what depends on the "
                    "parameters"
                )

    def check_products(self, theta: Tensor) -> None:
        """Checks that products with the Hessian are those of the regularizer's gradient.

        Raises:
            ValueError: they differ from differences of gradients.
        """
        wrong = "regularizer: its second derivatives are wrong: a product differs from a difference of gradients by"
        if wrong_by := self._largest_error(_products, theta, *NEAR):
            raise ValueError(
                f"{wrong} {wrong_by:.2g} of it; a power iteration under no_grad(), a detach() of what depends on the "
                "parameters, and a custom autograd.Function that keeps tensors on ctx instead of by save_for_backward, "
                "lose terms silently; write it in differentiable operations, such as "
                "torch.linalg.matrix_norm(weight, 2) for a spectral norm"
            )
        if wrong_by := self._largest_error(_products, theta, *AT):
            raise ValueError(
                f"{wrong} {wrong_by:.2g} of it, exactly at these weights and not beside them; {AT_ZERO}"
            )

    def _largest_error(self, compared: Compared, theta: Tensor, moved: float, draws: int) -> float:
        """The largest relative error of a derivative, beside the weights or at them; 0 unless all draws have one."""
        if len(theta) > MOST_WEIGHTS:
            return 0.0
        errors = []
        for seed in range(draws):
            try:
                error = self._error(compared, theta, moved, seed)
            except RuntimeError:
                # the regularizer fixes a dtype inside
                return 0.0
            if error is None:
                return 0.0
            errors.append(error)
        return max(errors)

    def _error(self, compared: Compared, theta: Tensor, moved: float, seed: int) -> float | None:
        generator = torch.Generator().manual_seed(seed)
        shift, vector = (
            torch.randn(theta.shape, generator=generator, dtype=torch.float64, device="cpu").to(theta.device)
            for _ in range(2)
        )
        size = theta.double().square().mean().sqrt().item() or 1.0
        point, step = theta.double() + moved * size * shift, STEP * size
        found, rise, rounded = compared(self, point, vector)
        short = rise(0.0, step / 2)

        def spread() -> float:
            apart = _length(rise(0.0, step) - short)
            # a derivative that jumps at the very point
            return apart if moved else apart + _length(rise(step / 2, step / 4) - rise(-step / 2, step / 4))

        return error_beyond_differences(
            found, short, length=_length, rounding=lambda: 1e3 * EPS * rounded / step, spread=spread
        )


Rise = Callable[[float, float], Vector]
"""(shift, step) -> the difference over two steps about a point that is shifted, by their length."""

Compared = Callable[[Penalty, Tensor, Tensor], tuple[Any, Rise[Any], float]]
"""(penalty, point, vector) -> a derivative along the vector, differences, and the size of what is rounded in them."""


def _length(vector: float | Tensor) -> float:
    return norm(vector) if isinstance(vector, Tensor) else abs(vector)


def _slopes(penalty: Penalty, point: Tensor, vector: Tensor) -> tuple[float, Rise[float], float]:
    """The slope, and differences of values."""

    def rise(shift: float, step: float) -> float:
        ahead, behind = (penalty(point + (shift + h) * vector).item() for h in (step, -step))
        return (ahead - behind) / (2 * step)

    return (penalty.gradient(point) @ vector).item(), rise, abs(penalty(point).item())


def _products(penalty: Penalty, point: Tensor, vector: Tensor) -> tuple[Tensor, Rise[Tensor], float]:
    """The product with the Hessian, and differences of gradients."""

    def rise(shift: float, step: float) -> Tensor:
        ahead, behind = (penalty.gradient(point + (shift + h) * vector) for h in (step, -step))
        return (ahead - behind) / (2 * step)

    return penalty.product(point, vector[:, None])[:, 0], rise, norm(penalty.gradient(point))
