"""The diagonal of a symmetric operator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.krylov.stopping import sampled_until
from landscape.operator import Operator
from landscape.seeds import normal_like

FIRST = 8
"""Number of probes before the error is estimated for the first time."""

COLUMNS = 16
"""Number of unit vectors that are multiplied together."""


@dataclass(frozen=True)
class DiagonalEstimate:
    """The diagonal of an operator.

    Attributes:
        values: (n,), float64.
        standard_errors: (n,), over the probes; 0 where the diagonal is exact, NaN where an exact one is no number.
        converged: whether the errors are within the tolerance.
        products: number of products spent.
    """

    values: Tensor
    standard_errors: Tensor
    converged: bool
    products: int


def diagonal_of(
    operator: Operator, *, rtol: float | None, max_products: int, generator: torch.Generator
) -> DiagonalEstimate:
    """The diagonal: exact if as many products as rows are allowed, else the slopes of A z over Gaussian probes z.

    Let a be a row's entry on the diagonal, and s the length of its other entries. For Gaussian z the row's product is
    a z_i + s e, with e a standard normal number that does not depend on z_i. So the least-squares slope over the probes
    (Bekas, Kokiopoulou, Saad 2007) is unbiased, and with its standard error it follows Student's distribution, of one
    degree of freedom less than probes, whatever the matrix is. Random signs would have a variance s^2 / probes in the
    place of s^2 / (probes - 2), but two of them may agree in all probes by chance: an entry is then wrong, and all
    probes agree on it.

    Args:
        operator: an operator A with n rows.
        rtol: sampling ends when the root mean square of the standard errors is at most rtol times that of the diagonal;
            None spends the whole budget.
        max_products: most products that may be spent, at least 2.
        generator: draws the probes.
    """
    n = operator.dimension
    if max_products >= n:
        exact = _exact(operator)
        errors = torch.where(torch.isfinite(exact), 0.0, math.nan)
        return DiagonalEstimate(exact, errors, _are_numbers(exact), n)
    slope, squares, residual = torch.zeros(3, n, dtype=torch.float64, device=operator.device)
    drawn = 0

    def estimate(count: int) -> tuple[Tensor, Tensor]:
        nonlocal drawn
        for _ in range(drawn, count):
            probe = normal_like((n,), slope, generator)
            # recursive least squares: no sum of large numbers is subtracted from another
            image = (operator @ probe.unsqueeze(1)).double().squeeze(1)
            surprise = torch.addcmul(image, probe, slope, value=-1)
            total = torch.addcmul(squares, probe, probe)
            slope.add_(probe.mul_(surprise).div_(total))
            residual.add_(surprise.square_().mul_(squares).div_(total))
            squares.copy_(total)
        drawn = count
        return slope, (residual / squares / (count - 1)).sqrt_()

    def is_within(found: tuple[Tensor, Tensor]) -> bool:
        values, errors = found
        return rtol is not None and _are_numbers(values) and bool(errors.norm() <= rtol * values.norm())

    def is_done(found: tuple[Tensor, Tensor]) -> bool:
        return is_within(found) or not _are_numbers(found[0])

    found, products = sampled_until(is_done, estimate, first=FIRST, most=max_products)
    return DiagonalEstimate(*found, is_within(found), products)


def _are_numbers(values: Tensor) -> bool:
    """Whether all values are finite."""
    return bool(torch.isfinite(values).all())


def _exact(operator: Operator) -> Tensor:
    n = operator.dimension
    values = torch.empty(n, dtype=torch.float64, device=operator.device)
    for start in range(0, n, COLUMNS):
        rows = torch.arange(start, min(start + COLUMNS, n), device=operator.device)
        unit = torch.zeros(n, len(rows), dtype=torch.float64, device=operator.device)
        unit[rows, rows - start] = 1
        values[rows] = (operator @ unit).double()[rows, rows - start]
    return values
