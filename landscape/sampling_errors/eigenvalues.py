"""The sampling error of eigenvalues, from the products of each group of samples with the eigenvectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.curvature.eigenvalues import TopEigenvalues, deflation
from landscape.loss.matrices_by_name import matrix_named
from landscape.operator import Operator
from landscape.sampling_errors.coupled import coupled_eigenvalues
from landscape.sampling_errors.result import SamplingError, error_of
from landscape.sampling_errors.units import OfUnits, Units
from landscape.seeds import generator_for

MOST_TURNED = 0.1
"""Largest squared length of the change of an eigenvector, to first order, at which second-order theory holds. Where
all eigenvalues of the source are equal it is mostly 0.5 or more, and the bias is two to five times the estimate."""

NOTICED = 0.25
"""Eigenvalues that cannot move an eigenvalue by this share of its standard error may meet it."""

ROUNDING = 1e-6
"""Such moves are also not noticed if they are smaller than this share of the largest eigenvalue."""


def eigenvalue_errors(units: Units, eigen: TopEigenvalues, seed: int) -> SamplingError:
    """The sampling errors of eigenvalues that were found with their vectors U.

    On other samples the matrix is H + D. To second order in D, its eigenvalue j is

        value_j + u_j^T D u_j + sum over the other eigenpairs i of (u_i^T D u_j)^2 / (value_j - value_i)

    The second term has mean 0, and its variance is that of the units' Rayleigh quotients. The third term is a bias,
    which drives the largest eigenvalue up. D is unknown, but the spread over the units gives its covariance. Of the
    pairs that were not found only the sum of the (u_i^T D u_j)^2 is known. Where their eigenvalues lie is seen by up to
    4 products with a random sum of the units' D u_j outside of the span of U. A term v^2 / gap is replaced by the shift
    of the eigenvalues of [[gap, v], [v, 0]]. The two are equal to second order, and the shift is finite if two
    eigenvalues meet.

    If D turns an eigenvector far into others (`MOST_TURNED`), eigenvalues meet, and the bias is larger than this
    estimate by an unknown factor. The interval is then infinite on the side on which the truth may lie: below the first
    eigenvalue of the largest, above that of the smallest, and on both sides of further eigenvalues. The other end
    holds, because the largest eigenvalue is a convex function of the matrix.

    Source: perturbation theory of eigenvalues (Kato 1966, section II.2).

    Raises:
        ValueError: the pairs did not converge, have no vectors, or belong to another size, other samples or other
            weights.
    """
    # before the product by which `deflation` looks at the pairs
    if not eigen.converged.all():
        missed = int((~eigen.converged).sum())
        raise ValueError(
            f"measured: {missed} of {len(eigen.values)} eigenvalues did not converge; find them with a larger "
            "max_products or tol"
        )
    objective = units.whole
    found = deflation(eigen, objective, eigen.matrix, field="measured")
    # products with all samples cost less in the chunks of the objective than unit by unit
    whole, operator = (matrix_named(eigen.matrix, each) for each in (objective, units.objective))
    basis, values = found.basis.double(), found.values.double().cpu()
    k = len(values)
    # the regularizer's part of H U belongs to no unit
    mean = basis * found.values - operator.of_regularizer(basis.to(objective.theta))
    # each process has units of its own, and draws for itself
    generator = generator_for("sum of the changes of units", seed, part=(objective.ranks.place,))
    random_sum = torch.zeros_like(basis)

    def couplings(_: Tensor, product: Tensor) -> Tensor:
        """U^T D U, and the squared norms of the part of D U outside of the space of U."""
        change = product - mean
        inside = basis.T @ change
        outside = change - basis @ inside
        random_sum.add_(outside, alpha=2 * int(torch.randint(2, (), generator=generator, device="cpu")) - 1)
        return torch.cat([inside.flatten(), outside.square().sum(0)])

    weights, of_units = operator.of_chunks(basis, units.told(couplings))
    variances = units.variance(OfUnits(weights, of_units[:, : k * k])).view(k, k)
    outside = units.mean_square(OfUnits(weights, of_units[:, k * k :]))
    changes = objective.ranks.over_samples(random_sum)
    of_pairs = [
        _Couplings.of(values, variances[:, j], j).joined(whole, basis, changes[:, j], outside[j])
        for j in range(k)
    ]
    scale = ROUNDING * float(values.abs().max())
    is_lost = [each.meets(math.sqrt(variances[j, j]), scale) for j, each in enumerate(of_pairs)]
    return error_of(
        units,
        [f"eigenvalue {j + 1}" for j in range(k)],
        values,
        variances.diagonal(),
        biases=torch.stack([each.bias for each in of_pairs]),
        numerical=torch.from_numpy(eigen.errors).double() / 2,
        open_ends=_open_ends(is_lost, eigen),
        products=k + sum(each.products for each in of_pairs),
    )


class _Couplings:
    """The gaps from one eigenvalue to others, (m,), and the variances of its couplings with them.

    Args:
        value: the eigenvalue.
        gaps: how far it is above each of the others.
        squares: the variances.
        products: products that were spent.
    """

    def __init__(self, value: float, gaps: Tensor, squares: Tensor, products: int = 0) -> None:
        self.value, self.gaps, self.squares, self.products = value, gaps, squares, products

    @classmethod
    def of(cls, values: Tensor, variances: Tensor, index: int) -> _Couplings:
        """Those of one of the found eigenvalues with the others that were found."""
        others = torch.arange(len(values), device="cpu") != index
        return cls(float(values[index]), values[index] - values[others], variances[others])

    def joined(self, operator: Operator, known: Tensor, change: Tensor, square: Tensor) -> _Couplings:
        """The same with the eigenvalues that were not found, which couple by `square` in all."""
        rest = coupled_eigenvalues(operator, known, change, self.value)
        return _Couplings(
            self.value,
            torch.cat([self.gaps, self.value - rest.nodes]),
            torch.cat([self.squares, square * rest.shares]),
            rest.products,
        )

    @property
    def bias(self) -> Tensor:
        """The sum of the shifts of the eigenvalue away from the others."""
        wide = (self.gaps.square() + 4 * self.squares).sqrt()
        return (torch.sign(self.gaps) * (wide - self.gaps.abs()) / 2).sum()

    def meets(self, standard_error: float, rounding: float) -> bool:
        """Whether the eigenvector turns far into others that may move the eigenvalue noticeably."""
        # equal eigenvalues without a coupling do not meet
        ratio = self.squares / self.gaps.square().clamp(min=1e-300)
        turned = float(ratio.clamp(max=1).sum())
        moved = float(2 * (self.squares * (ratio > 0.01)).sum().sqrt())
        return turned > MOST_TURNED and moved > max(NOTICED * standard_error, rounding)


def _open_ends(is_lost: list[bool], eigen: TopEigenvalues) -> Tensor:
    """Which ends of the intervals are infinite, (2, k): lower, upper."""
    ends = torch.tensor([is_lost, is_lost], device="cpu")
    if is_lost[0]:
        is_top = eigen.which == "largest" or (eigen.which == "magnitude" and eigen.values[0] > 0)
        ends[int(is_top), 0] = False
    return ends
