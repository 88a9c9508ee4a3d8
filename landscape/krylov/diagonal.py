"""The diagonal of a symmetric operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.krylov.stopping import sampled_until
from landscape.operator import Operator

FIRST = 8
"""Number of probes before the error is estimated for the first time."""

COLUMNS = 16
"""Number of unit vectors that are multiplied together."""


@dataclass(frozen=True)
class DiagonalEstimate:
    """The diagonal of an operator.

    Attributes:
        values: (n,), float64.
        standard_errors: (n,), over the probes; 0 where the diagonal is exact.
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
    """The diagonal: exact if as many products as rows are allowed, else the mean of z * (A z) over random signs z.

    The estimate of an entry is unbiased. Its variance is the sum of the squares of the other entries in the row (Bekas,
    Kokiopoulou, Saad 2007).

    Args:
        operator: an operator A with n rows.
        rtol: sampling ends when the root mean square of the standard errors is at most rtol times that of the diagonal;
            None spends the whole budget.
        max_products: most products that may be spent, at least 2.
        generator: draws the probes.
    """
    n = operator.dimension
    if max_products >= n:
        return DiagonalEstimate(_exact(operator), torch.zeros(n, dtype=torch.float64, device="cpu"), True, n)
    total = torch.zeros(2, n, dtype=torch.float64, device=operator.device)
    drawn = 0

    def estimate(count: int) -> tuple[Tensor, Tensor]:
        nonlocal drawn
        for _ in range(drawn, count):
            signs = torch.randint(0, 2, (n,), generator=generator, device=operator.device).double() * 2 - 1
            product = signs * (operator @ signs).double()
            total.add_(torch.stack([product, product.square()]))
        drawn = count
        mean, square = total / count
        variance = (square - mean.square()).clamp(min=0) / (count - 1)
        return mean, variance.sqrt()

    def is_within(found: tuple[Tensor, Tensor]) -> bool:
        values, errors = found
        return rtol is not None and bool(errors.norm() <= rtol * values.norm())

    found, products = sampled_until(is_within, estimate, first=FIRST, most=max_products)
    return DiagonalEstimate(*found, is_within(found), products)


def _exact(operator: Operator) -> Tensor:
    n = operator.dimension
    values = torch.empty(n, dtype=torch.float64, device=operator.device)
    for start in range(0, n, COLUMNS):
        rows = torch.arange(start, min(start + COLUMNS, n), device=operator.device)
        unit = torch.zeros(n, len(rows), dtype=torch.float64, device=operator.device)
        unit[rows, rows - start] = 1
        values[rows] = (operator @ unit).double()[rows, rows - start]
    return values
