"""Mean ranks and who differs, by simulation and against SciPy."""

import numpy as np
import pytest
import scipy.stats

from analysis.statistics.ranking import critical_difference, friedman_p, rank_methods


def named(count):
    return [f"method {number}" for number in range(count)]


def test_ranks_are_those_of_scipy_with_the_best_score_first():
    scores = np.random.default_rng(0).integers(0, 6, (40, 7)).astype(float)
    found = rank_methods(named(7), scores)
    np.testing.assert_array_equal(found.ranks, scipy.stats.rankdata(-scores, axis=1))
    np.testing.assert_allclose(found.mean, found.ranks.mean(0))


def test_a_score_that_is_not_a_number_is_the_worst():
    found = rank_methods(named(3), [[0.5, np.nan, 0.4], [0.5, np.nan, np.nan]])
    np.testing.assert_array_equal(found.ranks, [[1, 3, 2], [1, 2.5, 2.5]])


def test_friedmans_statistic_is_scipys_in_the_form_of_iman_and_davenport():
    generator = np.random.default_rng(1)
    for scores in (generator.normal(size=(12, 5)), generator.integers(0, 4, (12, 5)).astype(float)):
        chi_squared = scipy.stats.friedmanchisquare(*scores.T).statistic
        f = 11 * chi_squared / (12 * 4 - chi_squared)
        expected = scipy.stats.f.sf(f, 4, 44)
        assert friedman_p(rank_methods(named(5), scores).ranks) == pytest.approx(expected)


def test_cells_without_a_difference_and_cells_that_agree_wholly():
    assert friedman_p(rank_methods(named(3), np.ones((5, 3))).ranks) == 1.0
    agreed = np.tile([3.0, 2.0, 1.0], (4, 1))
    # of 6^4 equally probable orders 6 have all cells alike
    assert friedman_p(rank_methods(named(3), agreed).ranks) == pytest.approx(6 / 6**4)


@pytest.mark.parametrize(
    # Demšar 2006, Table 5(a): q at 5% of 2, 5 and 10 classifiers
    ("count", "quantile"),
    [(2, 1.960), (5, 2.728), (10, 3.164)],
)
def test_the_critical_difference_is_that_of_the_published_table(count, quantile):
    expected = quantile * np.sqrt(count * (count + 1) / (6 * 14))
    assert critical_difference(14, count) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("cells", "count"), [(6, 4), (10, 19), (30, 6)])
def test_methods_that_do_not_differ_are_seldom_told_apart(cells, count):
    """The share of studies with any false difference, of 1,000; the bound is 5% and three standard errors."""
    generator = np.random.default_rng(2)
    false = 0
    for _ in range(1000):
        # cells of different difficulty and spread, which ranks do not see
        scores = generator.normal(size=(cells, 1)) + generator.exponential(
            size=(cells, 1)
        ) * generator.normal(size=(cells, count))
        found = rank_methods(named(count), scores)
        false += found.differs(int(found.order[0]), int(found.order[-1]))
    assert false <= 50 + 3 * np.sqrt(1000 * 0.05 * 0.95)


def test_intervals_hold_the_expected_mean_rank_of_equal_methods():
    generator = np.random.default_rng(3)
    held = np.mean(
        [
            ((found.low <= 3.5) & (found.high >= 3.5)).mean()
            for found in (rank_methods(named(6), generator.normal(size=(10, 6))) for _ in range(1000))
        ]
    )
    assert held == pytest.approx(0.95, abs=0.02)


def test_a_planted_order_is_recovered():
    generator = np.random.default_rng(4)
    orders, found_apart = 0, 0
    for _ in range(200):
        scores = np.array([0.0, 1.0, 2.0, 3.0]) + generator.normal(scale=0.4, size=(16, 4))
        found = rank_methods(named(4), scores)
        orders += found.order.tolist() == [3, 2, 1, 0]
        found_apart += found.differs(3, 0) and found.differs(2, 0) and found.differs(3, 1)
    assert orders >= 195
    assert found_apart >= 195


def test_groups_are_the_largest_runs_of_neighbors_that_are_not_told_apart():
    generator = np.random.default_rng(5)
    # two equal pairs far apart
    scores = np.array([5.0, 5.0, 0.0, 0.0]) + generator.normal(scale=0.5, size=(40, 4))
    found = rank_methods(named(4), scores)
    assert [sorted(group) for group in found.groups()] == [[0, 1], [2, 3]]
    alike = rank_methods(named(4), [[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2], [4, 1, 2, 3]])
    assert [sorted(group) for group in alike.groups()] == [[0, 1, 2, 3]]


@pytest.mark.parametrize("scores", [np.ones((1, 3)), np.ones((3, 1)), np.ones((3, 2))])
def test_too_few_cells_or_methods_are_refused(scores):
    with pytest.raises(ValueError, match="^scores: must be"):
        rank_methods(named(scores.shape[1] if scores.shape[1] != 2 else 3), scores)
