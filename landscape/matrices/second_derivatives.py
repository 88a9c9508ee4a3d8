"""A check of second derivatives, and products without them: both by differences of first derivatives."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from landscape.fx.plain_formulas import twice_differentiable
from landscape.guards.draws_that_differ import error_of_draws
from landscape.guards.in_float64 import EPS, MOVED, InFloat64, few_and_more
from landscape.guards.repeated_runs import HALF
from landscape.loss.objective import Objective
from landscape.matrices.padding_rows import slope_and_padding, without_padding_rows
from landscape.matrices.rounding import Known, warn_of_rounded_products
from landscape.matrices.rule import Rule
from landscape.matrices.slopes import check_slope_in_outputs
from landscape.model.settled import ALLOWED, AT_ZERO, DRAWS_AT_KINKS, SPREAD, error_beyond_differences

STEP = 1e-7
"""Relative to the weights. So short a step, which only float64 allows, hardly ever crosses the kink of a ReLU."""

SURE = 1e-5
"""Relative difference of 128 samples below which four of them cannot differ by more than `ALLOWED`."""

ROUNDINGS = 10
"""A gradient is off by at most so many roundings of its length."""

LONG_STEP = 1e-4
"""Relative to the weights, for products: rounding and the error of the difference are then about 1e-9 of them."""

COPIES = 10
"""Vectors and models in float64 that the comparison holds at a time."""


class HasRule(Protocol):
    """A matrix class with a rule."""

    rule: ClassVar[Rule]


def check_second_derivatives(matrix: type[HasRule], objective: Objective) -> None:
    """Compares a product of a few samples with a difference of first derivatives, in float64; once an objective.

    The check finds custom functions whose backward torch cannot differentiate but differentiates without a word. It
    looks near the weights, and at the weights themselves, where an argument of exactly 0 may be special to torch. It
    makes no comparison for a model that does not run in float64 (casts to shorter dtypes are left out), for one whose
    copies do not fit into the memory budget, and at a point where the differences do not settle. For a loss that is as
    small as the rounding of the outputs it finds only a product that lacks terms at the weights.

    Args:
        matrix: class of the matrix.
        objective: gives the matrix. No other thread may swap the weights of its model meanwhile.

    Raises:
        ValueError: product and difference differ, at two points and in two directions, or at the weights in four.

    Warns:
        UserWarning: rounding within the model changes products by more than the error of a result covers.
    """
    if matrix in objective.verified:
        return
    fits = COPIES * 8 * objective.n_parameters <= objective.memory_budget
    more, known = None, None
    if fits:
        few, more = few_and_more(objective.in_float64, objective.chunks.all_or_first(), objective.chunk_size)
        known = _checked(matrix.rule, few, more)
    warn_of_rounded_products(matrix.rule, objective.model, objective.dtype, more, known)
    # a new set, because a subset or a moved copy of the objective has the old one
    objective.verified = objective.verified | {matrix}


def _checked(rule: Rule, few: InFloat64, more: InFloat64) -> Known | None:
    """A right product of more samples, if there is one that agrees with a difference of gradients.

    Raises:
        ValueError: product and difference differ.
    """
    if rule.uses_slopes:
        check_slope_in_outputs(few)
    share, known = _first_comparison(rule, more) if more is not few else (math.inf, None)
    # more samples have more kinks, at which the differences do not settle
    error = 0.0 if share <= SURE else _largest_error(rule, few)
    if not error and more is not few and share > ALLOWED:
        error = _largest_error(rule, more)
    if error:
        raise ValueError(
            f"{_WRONG.format(error)}; a custom autograd.Function whose backward is once_differentiable, or that keeps "
            "tensors on ctx instead of by save_for_backward, a detach() of what depends on the weights, and "
            "torch.sparse.mm with sparse weights, lose terms silently; write the backward in differentiable operations "
            f"of saved tensors, or the forward in plain torch and dense tensors; {_IN_LIBRARIES}"
        )
    if at_weights := error_of_draws(few, partial(_error_at_the_weights, rule, few), draws=DRAWS_AT_KINKS):
        raise ValueError(
            f"{_WRONG.format(at_weights)}, exactly at these weights and not beside them; {AT_ZERO}, "
            "or move the weights a little"
        )
    return known if share <= SURE else None


_IN_LIBRARIES = (
    "of torchdiffeq give odeint, not odeint_adjoint, and where its steps adapt a smaller rtol and atol; run gpytorch's "
    "kernels, and the measures, inside gpytorch.settings.trace_mode(True)"
)

_WRONG = "model: its second derivatives are wrong: a product differs from a difference of gradients by {:.2g} of it"


def _first_comparison(rule: Rule, more: InFloat64) -> tuple[float, Known | None]:
    """The relative difference of a product and a difference of gradients, and the product.

    The difference is infinite where the two cannot be compared, and NaN where both are.
    """
    try:
        if more.loses_precision or more.is_below_rounding(STEP):
            return math.inf, None
        with more.throughout():
            compared = _Compared(rule, more, 0)
            distance, length = more.length(compared.product - compared.short), more.length(compared.short)
    except Exception:
        # the model or the loss fixes a dtype inside
        return math.inf, None
    return (distance / length if length else math.inf if distance else 0.0), compared.known


def _largest_error(rule: Rule, few: InFloat64) -> float:
    """The largest relative difference at two points; 0 unless product and difference differ at both."""
    return error_of_draws(few, partial(_error, rule, few)) or 0.0


def _error(rule: Rule, few: InFloat64, seed: int) -> float | None:
    """The relative difference at a point near theta; None if it is within what the differences are good for."""
    if few.is_below_rounding(STEP):
        return None
    return _Compared(rule, few, seed).error()


def _error_at_the_weights(rule: Rule, few: InFloat64, seed: int) -> float | None:
    """The same at theta itself."""
    compared = _Compared(rule, few, seed, moved=0.0)
    if few.is_below_rounding(STEP) and few.length(compared.product) > few.length(compared.short):
        # such as the curvature of a sure prediction, which is smaller than the last digit of a gradient
        return None
    return compared.error()


class _Compared:
    """A product at a point near the weights, or at them, and differences of gradients in the place of it.

    Attributes:
        product: (n,), as it is computed everywhere else.
        short: (n,), the difference over half a step.
    """

    @torch.enable_grad()
    def __init__(self, rule: Rule, few: InFloat64, seed: int, moved: float = MOVED) -> None:
        self._rule, self._few, self._moved = rule, few, moved
        drawn = few.drawn(seed)
        near = drawn.add_to(few.theta.to(torch.float64, copy=True))
        if few.theta.dtype == torch.float32:
            # so that a product in float32 is one at the same point; half precision would make weights equal again
            near = near.float().double()
        vector = drawn.unit * drawn.steps.double()
        slope, is_padding = slope_and_padding(few, near)
        # a padding row is a constant to torch as an input, and yet moves the loss, also where a tied head has its slope
        self._vector = vector.mul_(slope != 0).masked_fill_(is_padding, 0)
        self._gradient = few.length(slope)
        # as long as the weights, and not held beside a product
        del slope, is_padding
        with twice_differentiable():
            self._point = near if moved else few.theta.double()
            self.product = few.run(
                self._point, lambda variable, outputs: rule.direct(variable, outputs, few.loss)(self._vector)
            )
        self.short = self.difference(STEP / 2)

    def error(self) -> float | None:
        """The relative difference; None if it is within what the differences are good for."""
        return error_beyond_differences(
            self.product, self.short, length=self._few.length, rounding=self._rounding, spread=self._spread
        )

    def _spread(self) -> float:
        apart = self._few.length(self.difference(STEP) - self.short)
        if self._moved:
            return apart
        # a second derivative that jumps at the very point, as that of ELU at 0
        ahead, behind = (self.difference(STEP / 4, shift) for shift in (STEP / 2, -STEP / 2))
        return apart + self._few.length(ahead - behind)

    def _rounding(self) -> float:
        """What the rounding of gradients leaves of their difference, where all predictions are sure."""
        return SPREAD * ROUNDINGS * EPS * self._gradient / STEP

    @property
    def known(self) -> Known | None:
        """The product, if the point is exact in the dtype of the weights."""
        return None if self._few.theta.dtype in HALF else Known(self._point, self._vector, self.product)

    @torch.enable_grad()
    def difference(self, step: float, shift: float = 0.0) -> Tensor:
        """The difference of gradients over a step, by its length, about a point shifted along the vector."""
        with twice_differentiable():
            few, about = self._few, self._point + shift * self._vector if shift else self._point
            return self._rule.difference(few.run, few.loss, about, step * self._vector) / step


@torch.enable_grad()
def difference_products(rule: Rule, few: InFloat64, vectors: Tensor) -> tuple[Tensor, float]:
    """Products from first derivatives alone, for models with an operation that has no second one.

    Args:
        rule: of the matrix.
        few: the loss of some samples.
        vectors: (k, n).

    Returns:
        The products (k, n), and the largest relative error, from the difference over half the step.

    Raises:
        ValueError: a padding row of an embedding is a variable elsewhere, too.
    """
    products, error = [], 0.0
    for vector in without_padding_rows(few, vectors.double()):
        scale = few.size / max(few.root_mean_square(vector), 1e-300)
        long, short = (
            rule.difference(few.run, few.loss, few.theta.double(), step * vector) / step
            for step in (LONG_STEP * scale, LONG_STEP * scale / 2)
        )
        # the leading error is of second order in the step
        products.append((4 * short - long) / 3)
        error = max(error, few.length(long - short) / max(few.length(short), 1e-300))
    return torch.stack(products), error
