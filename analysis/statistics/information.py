"""Conditional mutual information: what a measure tells about an outcome beyond the hyper-parameters."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.finding import THESE, Finding, Test, no_population, nothing_found
from analysis.statistics.methods import FEWEST, method_means
from analysis.statistics.resampling import PERMUTATIONS, Values
from analysis.statistics.signs import reordered, sign_matrices
from analysis.statistics.student import CONFIDENCE

LARGEST_SET = 2
"""Largest number of hyper-parameters that are held fixed together, as in Jiang et al."""
BATCHES = 10
"""Number of batches of permutations, which bounds the memory."""

Codes = NDArray[np.int64]


def conditional_information(
    cells: ArrayLike,
    methods: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    hyperparameters: pd.DataFrame,
) -> Finding:
    """How much the order of two methods in x tells about their order in y, with hyper-parameters held fixed.

    For a set S of hyper-parameters, and pairs of methods in one cell,
    I(sgn(x_i - x_j); sgn(y_i - y_j) | S of i, S of j) / H(sgn(y_i - y_j) | S of i, S of j)
    is the share of the uncertainty about y that x removes, among pairs with the same hyper-parameters in S. It lies
    between 0 and 1 (Jiang et al. 2020, arXiv:1912.02178). A measure that only follows a hyper-parameter has the share 0
    for the set of this hyper-parameter. The estimate is the smallest share over all sets of at most two, minus the
    share by chance: the mean over permutations of methods, because shares of few pairs are too large. The estimate has
    no sign; Kendall's tau has one. The interval is as wide as 95% of the permutations, because resampled methods would
    be paired with themselves.

    The test permutes whole methods, in the same way in all cells (see `rank_association`). Its p-value is the largest
    over the sets: x has to tell something for each of them. A permutation also breaks the dependence of x on S, which
    makes the test conservative for measures that depend on S. Sets that leave no uncertainty about y are left out. The
    answer is about these cells, as permutations of methods say nothing of other data and noise.

    Args:
        cells: the cell of each run.
        methods: the method of each run. Runs of one method in one cell are averaged. Methods that are not in every cell
            are left out, and those with a run that has no number are lost.
        x: the measure of each run.
        y: the outcome of each run.
        hyperparameters: one row for each run, one column for each hyper-parameter, of comparable values.
    """
    runs = pd.DataFrame({"cell": np.asarray(cells).astype(str), "method": methods, "x": x, "y": y})
    codes = {option: pd.factorize(column, sort=True)[0] for option, column in hyperparameters.items()}
    options = pd.DataFrame(codes, index=runs.index)
    means = method_means(runs)
    if means.count < FEWEST:
        return nothing_found("too few methods", means.count, "methods", means.lost)
    rises, outcome = (sign_matrices(means.table[column].to_numpy(dtype=np.float64)) for column in ("x", "y"))
    options_of_methods = pd.DataFrame(
        options.groupby([runs["cell"], runs["method"]]).first().unstack("method")
    )
    conditions = [
        condition
        for size in range(LARGEST_SET + 1)
        for names in itertools.combinations(options.columns, size)
        if (condition := _condition(names, options_of_methods, means.table["x"].columns, outcome)) is not None
    ]
    if not conditions:
        return nothing_found("hyper-parameters leave nothing to tell", means.count, "methods", means.lost)

    everyone = np.arange(means.count)
    orders = np.random.default_rng(0).permuted(np.tile(everyone, (PERMUTATIONS, 1)), axis=1)
    found = np.array([information_share(condition.pairs, rises, outcome) for condition in conditions])
    random = np.hstack(
        [
            [information_share(condition.pairs, those, outcome) for condition in conditions]
            for some in np.array_split(orders, BATCHES)
            for those in [reordered(rises, some)]
        ]
    )
    chance = random.mean(1)
    # the observed order is one of the permutations
    p_values = (1 + (random >= found[:, None] - 1e-12).sum(1)) / (1 + PERMUTATIONS)
    least = conditions[int((found - chance).argmin())]

    estimate = float((found - chance).min())
    by_chance = (random - chance[:, None]).min(0)
    spread = np.quantile(by_chance, [(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2]) - by_chance.mean()
    these = Test(
        THESE,
        estimate,
        low=float(estimate - spread[0]),
        high=float(estimate - spread[1]),
        p_value=float(p_values.max()),
        method=f"permutation test of methods, least given {' and '.join(least.names) or 'nothing'}",
        units=means.count,
        counted="methods",
        smallest_p=1 / (1 + PERMUTATIONS),
    )
    return Finding(these, no_population(these), len(means.table), lost=means.lost)


@dataclass(frozen=True)
class _Condition:
    """Hyper-parameters that are held fixed.

    Attributes:
        names: names of the hyper-parameters.
        pairs: int64 (strata, n, n), equal for pairs of methods with the same values of the hyper-parameters. -1 for
            pairs that tell nothing, because all pairs with their values are ordered in the same way.
    """

    names: tuple[str, ...]
    pairs: Codes


def _condition(
    names: tuple[str, ...], held: pd.DataFrame, methods: pd.Index, outcome: Values
) -> _Condition | None:
    """The condition of a set of hyper-parameters; None if y is certain given this set."""
    count = len(methods)
    values = np.zeros((len(outcome), count), dtype=np.int64)
    for option in names:
        found = held[option][methods].to_numpy(dtype=np.int64)
        values = values * (found.max() + 1) + found
    stratum = np.arange(len(outcome))[:, None, None]
    size = values.max() + 1
    codes = (stratum * size + values[:, :, None]) * size + values[:, None, :]
    codes = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
    rising, falling = (np.bincount(codes[outcome == sign], minlength=codes.max() + 1) for sign in (1, -1))
    open_cells = (rising > 0) & (falling > 0)
    if not open_cells.any():
        return None
    renumbered = np.where(open_cells, np.cumsum(open_cells) - 1, -1)
    return _Condition(names, renumbered[codes])


def information_share(pairs: Codes, x: Values, y: Values) -> Values:
    """I(x; y | pair) / H(y | pair) of signs: x (..., strata, n, n), y and pairs (strata, n, n); 0 if y is certain."""
    cells, shape = int(pairs.max()) + 1, x.shape[:-3]
    batch = int(np.prod(shape))
    # pairs that tie in y tell nothing
    used = np.flatnonzero((pairs >= 0) & (y != 0))
    of_pairs = (pairs.ravel()[used] * 3 + 1) * 2 + (y.ravel()[used] > 0)
    rises = x.reshape(batch, -1)[:, used].astype(np.int64)
    codes = np.arange(batch)[:, None] * (6 * cells) + of_pairs + 2 * rises
    counts = np.bincount(codes.ravel(), minlength=batch * cells * 6).reshape(batch, cells, 3, 2)
    without, with_x = _uncertainty(counts.sum(2)), _uncertainty(counts)
    share = np.divide(without - with_x, without, out=np.zeros_like(without), where=without > 0)
    return np.asarray(share.reshape(shape))


def _uncertainty(counts: Codes) -> Values:
    """Entropy of the last axis given the axes between the first and the last, times the number of pairs."""
    inner = tuple(range(1, counts.ndim))
    return np.asarray(_xlogx(counts.sum(-1)).sum(inner[:-1]) - _xlogx(counts).sum(inner))


def _xlogx(counts: Codes) -> Values:
    return np.asarray(scipy.special.xlogy(counts, counts))
