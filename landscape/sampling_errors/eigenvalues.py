"""The sampling error of eigenvalues, from the products of each group of samples with the eigenvectors."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.curvature.eigenvalues import TopEigenvalues, deflation
from landscape.loss.matrices_by_name import matrix_named
from landscape.sampling_errors.result import SamplingError, error_of
from landscape.sampling_errors.units import OfUnits, Units


def eigenvalue_errors(units: Units, eigen: TopEigenvalues) -> SamplingError:
    """The sampling errors of eigenvalues that were found with their vectors U.

    On other samples the matrix is H + D. To second order in D, its eigenvalue j is

        value_j + u_j^T D u_j + sum over the other eigenpairs i of (u_i^T D u_j)^2 / (value_j - value_i)

    The second term has mean 0, and its variance is that of the units' Rayleigh quotients. The third term is a bias,
    which drives the largest eigenvalue up. D is unknown, but the spread over the units gives its covariance. The other
    pairs, which were not found, are taken to have the eigenvalue 0, because nearly all of them are near 0. A term
    v^2 / gap is replaced by the shift of the eigenvalues of [[gap, v], [v, 0]]. The two are equal to second order, and
    the shift is finite if two eigenvalues meet.

    Source: perturbation theory of eigenvalues (Kato 1966, section II.2).

    Raises:
        ValueError: the pairs did not converge, have no vectors, or belong to another size, other samples or other
            weights.
    """
    objective = units.objective
    # before the product by which `deflation` looks at the pairs
    if not eigen.converged.all():
        missed = int((~eigen.converged).sum())
        raise ValueError(
            f"measured: {missed} of {len(eigen.values)} eigenvalues did not converge; find them with a larger "
            "max_products or tol"
        )
    found = deflation(eigen, objective, eigen.matrix, field="measured")
    operator = matrix_named(eigen.matrix, objective)
    basis, values = found.basis.double(), found.values.double().cpu()
    k = len(values)
    # the regularizer's part of H U belongs to no unit
    mean = basis * found.values - operator.of_regularizer(basis.to(objective.theta))

    def couplings(_: Tensor, product: Tensor) -> Tensor:
        """U^T D U, and the squared norms of the part of D U outside of the space of U."""
        change = product - mean
        inside = basis.T @ change
        outside = change - basis @ inside
        return torch.cat([inside.flatten(), outside.square().sum(0)])

    weights, of_units = operator.of_chunks(basis, units.told(couplings))
    variances = units.variance(OfUnits(weights, of_units[:, : k * k])).view(k, k)
    outside = units.mean_square(OfUnits(weights, of_units[:, k * k :]))
    gaps = values.unsqueeze(0) - values.unsqueeze(1)
    biases = (_shift(gaps, variances) * (1 - torch.eye(k, device="cpu"))).sum(0) + _shift(values, outside)
    names = [f"eigenvalue {j + 1}" for j in range(k)]
    return error_of(units, names, values, variances.diagonal(), biases=biases, products=k)


def _shift(gap: Tensor, square: Tensor) -> Tensor:
    """The shift of an eigenvalue away from another one at the distance `gap`, if sqrt(square) couples the two."""
    return torch.sign(gap) * ((gap.square() + 4 * square).sqrt() - gap.abs()) / 2
