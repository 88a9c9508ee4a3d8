"""How two quantities go together over methods within a noise rate: Kendall's tau, also given a third quantity."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import permutation_test

from analysis.statistics.effect import Effect
from analysis.statistics.methods import FEWEST, method_means, nothing_to_tell
from analysis.statistics.resampling import PERMUTATIONS, Indices, Values, bootstrap_interval
from analysis.statistics.signs import reordered, sign_matrices

TAU = "Kendall's tau"
SPREAD = math.sqrt(0.437)
"""SPREAD / sqrt(n - 4) is the standard error of atanh(tau) (Fieller, Hartley and Pearson 1957); for planning."""
EXACT_UP_TO = 7


def rank_association(
    name: str,
    strata: ArrayLike,
    methods: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    *,
    given: ArrayLike | None = None,
    predicted: int,
    seed: int = 0,
) -> Effect:
    """Kendall's tau-b of x and y over methods within each stratum, averaged over the strata.

    Tau-b is the correlation of the sign matrices sgn(x_i - x_j) and sgn(y_i - y_j), the partial tau that of
    their residuals on sgn(z_i - z_j), z being the given quantity: what Jiang et al. 2020 (arXiv:1912.02178) ask
    of a measure, to say something of generalisation that a third quantity, such as the training loss, does not.

    Runs of one method in one stratum are averaged first: its seeds are repetitions, not new evidence of how x
    and y go together, and to count them as such finds a correlation in more than half of all cases where there
    is none. For the same reason the test permutes whole methods, the same way in all strata, and the interval
    resamples them. Given z, the residuals are permuted and taken again (double semi-partialling, Dekker,
    Krackhardt and Snijders 2007).

    Args:
        name: what was compared.
        strata: such as noise rates, one a run.
        methods: one a run; methods that are not in every stratum are left out, and those with a run that has no
            number are lost.
        x: one a run.
        y: one a run.
        given: one a run.
        predicted: +1 or -1.
        seed: of the resampling.
    """
    columns = {"x": x, "y": y} if given is None else {"x": x, "y": y, "z": given}
    runs = pd.DataFrame({"stratum": strata, "method": methods, **columns})
    means = method_means(runs)
    if means.count < FEWEST:
        return nothing_to_tell(name, predicted, "too few methods", means, TAU)
    signs = {c: sign_matrices(means.table[c].to_numpy(dtype=np.float64)) for c in columns}
    everyone = np.arange(means.count)

    def resampled(drawn: Indices, axis: int) -> Values:
        order = np.moveaxis(drawn, axis, -1)
        third = reordered(signs["z"], order) if given is not None else None
        return _tau(reordered(signs["x"], order), reordered(signs["y"], order), third)

    first = signs["x"] if given is None else _residuals(signs["x"], signs["z"])

    def permuted(drawn: Indices, axis: int) -> Values:
        return _tau(reordered(first, np.moveaxis(drawn, axis, -1)), signs["y"], signs.get("z"))

    exact = means.count <= EXACT_UP_TO
    low, high = bootstrap_interval([everyone], resampled, seed)
    p_value = permutation_test(
        (everyone,),
        permuted,
        permutation_type="pairings",
        n_resamples=np.inf if exact else PERMUTATIONS,
        batch=500,
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).pvalue
    return Effect(
        name,
        predicted,
        float(permuted(everyone, -1)),
        low,
        high,
        float(p_value),
        f"{'exact ' if exact else ''}permutation test of methods",
        means.count,
        "methods",
        TAU if given is None else f"{TAU}, partial",
        lost=means.lost,
        spread=SPREAD,
        smallest_p=2 / math.factorial(means.count) if exact else 2 / (PERMUTATIONS + 1),
    )


def _tau(x: Values, y: Values, z: Values | None) -> Values:
    """Correlation of sign matrices, (..., strata, n, n) each, averaged over the strata; 0 where a side is constant."""
    if z is not None:
        x, y = _residuals(x, z), _residuals(y, z)
    scale = np.sqrt((x**2).sum((-1, -2)) * (y**2).sum((-1, -2)))
    products = (x * y).sum((-1, -2))
    # residuals of what z explains wholly are rounding errors
    defined = scale > 1e-9 * x.shape[-1] ** 2
    return np.asarray(np.divide(products, scale, out=np.zeros_like(products), where=defined).mean(-1))


def _residuals(matrix: Values, z: Values) -> Values:
    """What is left of sign matrices after the least-squares multiple of those of z."""
    size = (z**2).sum((-1, -2), keepdims=True)
    share = (matrix * z).sum((-1, -2), keepdims=True)
    return np.asarray(matrix - np.divide(share, size, out=np.zeros_like(share), where=size > 0) * z)
