"""Spectral density of an Objective's Hessian or Gauss-Newton matrix, with error bands."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from landscape.curvature.eigenvalues import TopEigenvalues, deflation
from landscape.krylov.counted import counted_products
from landscape.krylov.quadrature import lanczos_quadrature
from landscape.loss.matrices_by_name import matrix_named
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.progress import Progress
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.seeds import generator_for


@result
class SpectralDensity(DrawnResult):
    """The spectrum of a symmetric matrix: outliers one by one, and the bulk as a density.

    The bulk is the part of the spectrum without the outliers, as the probes see it. Its density is smoothed. `nodes`
    and `weights` are the measure without smoothing, from which any other smoothing can be made (`spectral_measure`).
    """

    eigenvalue: FloatArray = described(
        "where density and count are given: the range of the bulk", dims=("eigenvalue",), coordinate=True
    )
    density: FloatArray = described(
        "density of the bulk; its integral is the share of all eigenvalues", dims=("eigenvalue",)
    )
    density_error: FloatArray = described(
        "standard error of the density, from the spread of the probes", dims=("eigenvalue",)
    )
    count: FloatArray = described("eigenvalues up to there, outliers included", dims=("eigenvalue",))
    count_error: FloatArray = described("standard error of the count", dims=("eigenvalue",))
    outliers: FloatArray = described("eigenvalues known one by one, largest first", dims=("outlier",))
    outlier_residuals: FloatArray = described("their residuals ||H v - value v||", dims=("outlier",))
    negative_fraction: float = described("share of eigenvalues below zero by more than rounding")
    negative_fraction_error: float = described(
        "error of the share: its standard error over the probes, and the largest weight of a node next to zero, whose "
        "eigenvalues may lie on either side"
    )
    nodes: FloatArray = described("nodes of each probe's quadrature of the bulk", dims=("probe", "step"))
    weights: FloatArray = described("weights of the nodes, with sum 1 for each probe", dims=("probe", "step"))
    smoothing: float = described("standard deviation of the Gaussian that smooths the density")
    dimension: int = described("order of the matrix: number of eigenvalues")
    products: int = described(
        "matrix-vector products spent, also those for given eigenpairs", unit="products"
    )
    matrix: str = described("which matrix")
    samples: int = described("samples in the mean loss")


@of_objective
def spectral_density(
    objective: Objective,
    *,
    steps: int = 40,
    probes: int = 5,
    deflate: TopEigenvalues | None = None,
    smoothing: float | None = None,
    points: int = 501,
    matrix: str = "hessian",
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> SpectralDensity:
    """The spectral density at the objective's weights, by stochastic Lanczos quadrature (Ghorbani et al. 2019).

    Every Lanczos vector is orthogonalized against all earlier ones. Eigenvectors that were found one by one are removed
    from the probes, which removes most of the variance.

    Args:
        objective: gives the matrix.
        steps: number of Lanczos steps for each probe; finer details need more.
        probes: number of random starts, at least 2. The error falls as 1 / sqrt(probes).
        deflate: eigenpairs that are already known; if not given, those that the first probe finds.
        smoothing: standard deviation of the Gaussian. If not given, a fiftieth of the range of the bulk.
        points: number of values at which density and count are computed.
        matrix: `"hessian"`, `"gauss-newton"` or `"functional"` (Hessian minus Gauss-Newton).
        seed: seed of the probes.
        progress: called with the products spent and the most that may be spent. True writes a line on the terminal.

    Raises:
        ValueError: an argument is out of range.
    """
    if smoothing is not None and not smoothing > 0:
        raise ValueError(f"smoothing: must be positive, got {smoothing}")
    if points < 2:
        raise ValueError(f"points: must be at least 2, got {points}")
    n = objective.n_parameters
    # a Lanczos vector and its product in float64 take two vectors each
    objective.memory.check_room(min(steps, n) + 4, f"spectral_density with steps={steps}")
    fits = 8 * n * steps <= objective.memory_budget
    operator = matrix_named(matrix, objective)
    operator.expect(steps * probes)
    with counted_products(operator, steps * probes, progress, "spectral density") as counted:
        found = lanczos_quadrature(
            counted,
            steps=steps,
            probes=probes,
            deflate=None if deflate is None else deflation(deflate, objective, matrix),
            generator=generator_for("probes of a density", seed),
            vector_dtype=torch.float64 if fits else torch.float32,
        )
    outliers, nodes, weights = found.values.numpy(), found.nodes.numpy(), found.weights.numpy()
    share = (n - len(outliers)) / n
    nodes_of_bulk = nodes[weights > 0] if np.isfinite(weights).all() else np.array([math.nan])
    grid, width = _grid(nodes_of_bulk, smoothing, points)

    def over_probes(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard error over the probes, times the share of the eigenvalues that the bulk has."""
        mean, spread = values.mean(0), values.std(0, ddof=1)
        return share * mean, share * spread / math.sqrt(probes)

    distance = (grid[:, None, None] - nodes) / width
    # far away the density is 0; an underflow there must not raise, even if the caller made underflows errors
    with np.errstate(under="ignore"):
        kernel = np.exp(-(distance**2) / 2) / (width * math.sqrt(2 * math.pi))
        density, density_error = over_probes((kernel * weights).sum(2).T)
    below, count_error = over_probes(((nodes <= grid[:, None, None]) * weights).sum(2).T)
    known_below = (outliers <= grid[:, None]).sum(1)
    zero = 10 * torch.finfo(objective.dtype).eps * np.abs(np.append(outliers, nodes_of_bulk)).max(initial=0)
    negative, negative_error = over_probes(((nodes < -zero) * weights).sum(1))
    negative_error += share * _next_to(-zero, nodes, weights).mean()
    undefined = math.nan if np.isnan(weights).any() else 0.0
    return SpectralDensity(
        eigenvalue=grid,
        density=density,
        density_error=density_error,
        count=n * below + known_below + undefined,
        count_error=n * count_error + undefined,
        outliers=outliers,
        outlier_residuals=found.residuals.numpy(),
        negative_fraction=float(negative + (outliers < -zero).sum() / n + undefined),
        negative_fraction_error=float(negative_error),
        nodes=nodes,
        weights=weights,
        smoothing=float(width),
        dimension=n,
        products=found.products + (0 if deflate is None else deflate.products),
        matrix=matrix,
        samples=objective.n_samples,
    )


def _next_to(value: float, nodes: FloatArray, weights: FloatArray) -> FloatArray:
    """The largest weight of a node next to a value, for each probe.

    By the inequalities of Chebyshev, Markov and Stieltjes the true share below a value differs from that of the nodes
    by at most the weight of the next node (Golub and Meurant 2010, Matrices, Moments and Quadrature).
    """
    if nodes.size == 0:
        return np.zeros(len(nodes))
    below = np.where(nodes < value, nodes, -np.inf).argmax(1)
    above = np.where(nodes >= value, nodes, np.inf).argmin(1)
    probes = np.arange(len(nodes))
    has_below, has_above = (nodes < value).any(1), (nodes >= value).any(1)
    return np.maximum(
        np.where(has_below, weights[probes, below], 0.0), np.where(has_above, weights[probes, above], 0.0)
    )


def _grid(nodes: FloatArray, smoothing: float | None, points: int) -> tuple[FloatArray, float]:
    """The values at which the density is computed, and the standard deviation of the Gaussian that smooths it."""
    low, high = (nodes.min(), nodes.max()) if nodes.size else (0.0, 0.0)
    # a bulk of zeros has no range from which a width could follow
    width = smoothing or max((high - low) / 50, 1e-6 * max(abs(low), abs(high))) or 1e-12
    return np.linspace(low - 4 * width, high + 4 * width, points), width


def spectral_measure(density: SpectralDensity) -> tuple[FloatArray, FloatArray]:
    """The whole spectrum as points and masses: the outliers and the nodes of all probes. The masses sum to 1.

    Sums over the points, weighted by the masses, are means over the eigenvalues. The first moment times the dimension
    is the trace.
    """
    n, probes = density.dimension, len(density.nodes)
    share = (n - len(density.outliers)) / n
    values = np.concatenate([density.outliers, density.nodes.ravel()])
    single: NDArray[np.float64] = np.full(len(density.outliers), 1 / n)
    return values, np.concatenate([single, share * density.weights.ravel() / probes])
