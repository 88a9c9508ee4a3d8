"""A measure that tells something is told from one that only follows a hyper-parameter, and from noise."""

import itertools
from collections import Counter
from math import log

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis.statistics import conditional_information, information
from analysis.statistics.signs import sign_matrices

pytestmark = pytest.mark.usefixtures("quick_judgements")

# eighteen methods at three noise rates with two seeds
GRID = pd.DataFrame(
    [
        {"stratum": rate, "method": f"{name} {rho} {kappa}", "method_name": name, "rho": rho, "kappa": kappa}
        for rate, name, rho, kappa in itertools.product((0.2, 0.4, 0.6), "ab", (0.1, 0.2, 0.5), (1, 2, 3))
        for _ in range(2)
    ]
)
OPTIONS = GRID[["method_name", "rho", "kappa"]]


def of_method(rng):
    """A number of each method, the same in all its runs."""
    return GRID["method"].map(dict(zip(GRID["method"].unique(), rng.normal(size=18), strict=True))).to_numpy()


def planted(rng):
    measure = of_method(rng)
    return measure, measure + GRID["rho"] + 0.1 * rng.normal(size=108)


def follower(rng):
    return GRID["rho"] + 1e-3 * rng.normal(size=108), 5 * GRID["rho"] + of_method(rng)


def noise(rng):
    return of_method(rng), of_method(rng) + GRID["rho"]


def judged(kind, rng, **options):
    x, y = kind(rng)
    return conditional_information(GRID["stratum"], GRID["method"], x, y, OPTIONS, **options).these


def test_a_measure_that_tells_something_is_found():
    rng = np.random.default_rng(0)
    assert sum(judged(planted, rng).p_value < 0.05 for _ in range(8)) >= 7


@pytest.mark.parametrize("kind", [follower, noise])
def test_what_follows_a_hyper_parameter_or_nothing_is_found_in_at_most_one_of_twenty_cases(kind):
    rng = np.random.default_rng(1)
    effects = [judged(kind, rng) for _ in range(20)]
    assert sum(effect.p_value < 0.05 for effect in effects) <= scipy.stats.binom.ppf(0.999, 20, 0.05)
    assert np.mean([effect.estimate for effect in effects]) < 0.02


def test_a_measure_that_follows_a_hyper_parameter_tells_nothing_given_that_one():
    effect = judged(follower, np.random.default_rng(2))
    assert "rho" in effect.method
    assert effect.p_value > 0.5


def test_without_hyper_parameters_a_measure_is_found_too():
    x, y = planted(np.random.default_rng(0))
    none = pd.DataFrame(index=GRID.index)
    effect = conditional_information(GRID["stratum"], GRID["method"], x, y, none).these
    assert effect.p_value < 0.05
    assert "given nothing" in effect.method


def test_the_share_is_that_of_the_pairs_counted_one_by_one():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 2, 7))
    groups = rng.integers(0, 2, size=7)
    counts = Counter()
    for stratum, i, j in itertools.product(range(2), range(7), range(7)):
        if i != j:
            given = (stratum, groups[i], groups[j])
            counts[given, x[stratum, i] > x[stratum, j], y[stratum, i] > y[stratum, j]] += 1

    def share_of(*kept):
        total = Counter()
        for key, count in counts.items():
            total[tuple(key[k] for k in kept)] += count / counts.total()
        return -sum(p * log(p) for p in total.values())

    # H(x | u) + H(y | u) - H(x, y | u), over H(y | u)
    mutual = share_of(0, 1) + share_of(0, 2) - share_of(0, 1, 2) - share_of(0)
    stratum = np.arange(2)[:, None, None]
    pairs = (stratum * 2 + groups[:, None]) * 2 + groups[None, :]
    found = information.information_share(pairs, sign_matrices(x), sign_matrices(y))
    assert found == pytest.approx(mutual / (share_of(0, 2) - share_of(0)))


def test_the_order_of_runs_does_not_matter():
    x, y = planted(np.random.default_rng(4))
    found = []
    for order in (np.arange(108), np.random.default_rng(5).permutation(108)):
        shuffled = GRID.iloc[order].reset_index(drop=True)
        options = shuffled[OPTIONS.columns]
        found.append(
            conditional_information(
                shuffled["stratum"], shuffled["method"], x[order], y.to_numpy()[order], options
            ).these
        )
    # means over seeds add up in another order
    assert found[0].estimate == pytest.approx(found[1].estimate)
    assert found[0].p_value == found[1].p_value


@pytest.mark.parametrize(
    ("kept", "why"),
    [(["a 0.1 1", "b 0.1 1"], "too few methods"), (GRID["method"].unique(), "nothing to tell")],
)
def test_where_nothing_can_be_told_there_is_no_verdict(kept, why):
    x, _ = planted(np.random.default_rng(6))
    rows = GRID["method"].isin(kept)
    # an outcome of ties only
    effect = conditional_information(
        GRID["stratum"][rows], GRID["method"][rows], x[rows], np.ones(rows.sum()), OPTIONS[rows]
    ).these
    assert not effect.p_value < 0.05
    assert why in effect.method
