"""Degrees of freedom where cells scatter differently: signs are no more often false than they say."""

import numpy as np
import pytest
import scipy.stats

from analysis.statistics import paired_effect
from analysis.statistics.freedom import LUCK, shared_freedom

DESIGNS = {
    "ten cells of two seeds, one of 30 times the spread": ([2] * 10, [30] + [1] * 9),
    "ten cells of three seeds, one of 10 times the spread": ([3] * 10, [10] + [1] * 9),
    "five cells of 2 to 8 seeds, the fewest scatter most": ([2, 3, 5, 5, 8], [10, 1, 1, 1, 1]),
    "a slope of two seeds a rate, whose spread grows": ([2] * 4, [0.2 * 3, 1, 2, 3 * 3]),
    "a slope of three seeds a rate, whose spread grows": ([3] * 4, [0.2 * 3, 1, 2, 3 * 3]),
    "six cells alike": ([3] * 6, [1] * 6),
    "one cell": ([3], [1]),
}


def p_values(seeds, spread, draws):
    """Those of means of no effect, float64 (draws,)."""
    rng = np.random.default_rng(0)
    counts = np.array(seeds, dtype=np.float64)
    variances = np.square(spread) / counts
    found = variances * rng.chisquare(counts - 1, size=(draws, len(counts))) / (counts - 1)
    scores = rng.normal(size=draws) * variances.sum() ** 0.5 / found.sum(1) ** 0.5
    freedoms = [shared_freedom(shares, counts - 1) for shares in found]
    return 2 * scipy.stats.t.sf(np.abs(scores), freedoms)


@pytest.mark.parametrize("design", DESIGNS)
def test_signs_are_false_in_one_of_twenty_at_most_also_at_the_levels_that_holm_asks_for(design):
    found = p_values(*DESIGNS[design], draws=2000)
    for level in (0.05, 0.005, 0.0025):
        # 2,000 draws exceed it 1 time in 1,000
        assert (found < level).mean() <= scipy.stats.binom.ppf(0.999, 2000, level) / 2000


def test_cells_that_scatter_alike_lose_little_from_five_seeds_on():
    shares = np.random.default_rng(1).chisquare(4, size=(500, 6))
    assert np.median([shared_freedom(each, np.full(6, 4.0)) for each in shares]) > 6


def test_one_variance_keeps_its_freedom_and_none_makes_more_than_the_sum_or_less_than_one():
    assert shared_freedom(np.array([3.0]), np.array([4.0])) == pytest.approx(4)
    assert shared_freedom(np.array([0.0, 3.0, 0.0]), np.array([2.0, 4.0, 2.0])) == pytest.approx(4)
    assert shared_freedom(np.array([1.0, 1e-200]), np.array([1.0, 7.0])) == pytest.approx(1)
    rng = np.random.default_rng(2)
    for _ in range(50):
        freedoms = rng.integers(1, 8, size=5).astype(float)
        assert 1 <= shared_freedom(rng.chisquare(freedoms), freedoms) <= freedoms.sum()


def test_two_shares_have_satterthwaites_freedom_with_the_one_raised_that_leaves_fewer():
    raised = 3 * 2 / scipy.stats.chi2.ppf(LUCK, 2)
    expected = min(
        (raised + 4) ** 2 / (raised**2 / 2 + 4**2 / 5),
        (3 + 4 * 5 / 1.61030799) ** 2 / (3**2 / 2 + (4 * 5 / 1.61030799) ** 2 / 5),
    )
    assert shared_freedom(np.array([3.0, 4.0]), np.array([2.0, 5.0])) == pytest.approx(expected)


def test_the_mean_over_cells_has_this_freedom():
    values = [np.array([0.0, 1, 5]), np.array([2.0, 2.5, 2.2, 2.8])]
    found = paired_effect(list("aaabbbb"), np.concatenate(values)).these
    shares = np.array([each.var(ddof=1) / len(each) / 4 for each in values])
    assert found.freedom == pytest.approx(shared_freedom(shares, np.array([2.0, 3.0])))
    p = 2 * scipy.stats.t.sf(found.estimate / shares.sum() ** 0.5, found.freedom)
    assert found.p_value == pytest.approx(p)
