"""Mean ranks and who differs, by simulation, by exhaustive permutation and against SciPy."""

import itertools

import numpy as np
import pytest
import scipy.stats

from analysis.statistics.ranking import rank_methods

DRAWS = 1000
"""Permutations in simulations."""


def named(count):
    return [f"method {number}" for number in range(count)]


def ranked(scores, data_sets=None, draws=DRAWS, seed=0):
    """The ranking of scores, whose cells are data sets of their own if not told otherwise."""
    scores = np.asarray(scores, dtype=np.float64)
    return rank_methods(
        named(scores.shape[1]),
        scores,
        [f"data {number}" for number in range(len(scores))] if data_sets is None else data_sets,
        draws=draws,
        seed=seed,
    )


def test_ranks_are_those_of_scipy_with_the_best_score_first():
    scores = np.random.default_rng(0).integers(0, 6, (40, 7)).astype(float)
    found = ranked(scores)
    np.testing.assert_array_equal(found.ranks, scipy.stats.rankdata(-scores, axis=1))
    np.testing.assert_allclose(found.mean, found.ranks.mean(0))


def test_a_score_that_is_not_a_number_is_the_worst():
    found = ranked([[0.5, np.nan, 0.4], [0.5, np.nan, np.nan]])
    np.testing.assert_array_equal(found.ranks, [[1, 3, 2], [1, 2.5, 2.5]])


def test_each_data_set_counts_once_however_many_cells_it_has():
    found = ranked([[3, 2, 1], [3, 1, 2], [3, 1, 2], [1, 2, 3]], ["a", "a", "a", "b"])
    np.testing.assert_allclose(found.mean, [(1 + 3) / 2, (8 / 3 + 2) / 2, (7 / 3 + 1) / 2])
    assert (found.cells, found.data_set_count) == (4, 2)


def test_with_one_cell_a_data_set_the_test_is_friedmans():
    generator = np.random.default_rng(1)
    for scores in (generator.normal(size=(30, 5)), generator.integers(0, 4, (30, 5)).astype(float)):
        scores[:, 0] += 0.3
        expected = scipy.stats.friedmanchisquare(*scores.T).pvalue
        assert ranked(scores, draws=20_000).p_value == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    # Demšar 2006, Table 5(a): q at 5% of 2, 5 and 10 classifiers
    ("count", "quantile"),
    [(2, 1.960), (5, 2.728), (10, 3.164)],
)
def test_with_one_cell_a_data_set_the_critical_difference_is_near_that_of_the_published_table(
    count, quantile
):
    scores = np.random.default_rng(2).normal(size=(60, count))
    expected = quantile * np.sqrt(count * (count + 1) / (6 * 60))
    assert ranked(scores, draws=20_000).critical_difference == pytest.approx(expected, rel=0.06)


def test_drawn_permutations_agree_with_all_permutations():
    scores = np.random.default_rng(3).normal(size=(9, 4))
    data_sets = ["a"] * 4 + ["b"] * 2 + ["c"] * 3
    found = ranked(scores, data_sets, draws=50_000)
    of_data = [found.ranks[[name == each for each in data_sets]].mean(0) for name in "abc"]
    means = np.array(
        [
            (of_data[0] + b + c) / 3
            for b in itertools.permutations(of_data[1])
            for c in itertools.permutations(of_data[2])
        ]
    )
    spread = ((means - 2.5) ** 2).sum(1)
    assert found.p_value == pytest.approx((spread >= ((found.mean - 2.5) ** 2).sum() - 1e-9).mean(), abs=0.01)
    # at most 5% of the orders have a larger distance, and more than 5% have this one or a larger one
    distances = np.ptp(means, axis=1)
    assert (distances > found.critical_difference + 1e-9).mean() <= 0.055
    assert (distances >= found.critical_difference - 1e-9).mean() >= 0.045


def test_cells_without_a_difference_and_data_sets_that_agree_wholly():
    assert ranked(np.ones((5, 3))).p_value == 1.0
    # of 6^3 equally probable pairings 1 has all data sets alike
    assert ranked(np.tile([3.0, 2.0, 1.0], (4, 1)), draws=50_000).p_value == pytest.approx(6**-3, abs=1e-3)


def false_differences(effect, count, clustered, boards=400):
    """The share of leaderboards that tell methods apart that do not differ over data sets like these.

    In each of four data sets with six cells, a method has an effect of its own, common to the cells of the data set.
    """
    generator = np.random.default_rng(4)
    cells = np.repeat(["a", "b", "c", "d"], 6)
    false = 0
    for _ in range(boards):
        scores = effect * np.repeat(generator.normal(size=(4, count)), 6, axis=0)
        # cells of different difficulty and spread, which ranks do not see
        scores += generator.exponential(size=(24, 1)) * generator.normal(size=(24, count))
        found = ranked(scores, cells if clustered else None)
        false += found.differs(int(found.order[0]), int(found.order[-1]))
    return false / boards


@pytest.mark.parametrize(("effect", "count"), [(0.0, 4), (0.0, 18), (1.0, 4), (1.0, 18), (10.0, 10)])
def test_methods_that_do_not_differ_are_seldom_told_apart_however_alike_the_cells_of_a_data_set(
    effect, count
):
    """The bound is 5% and three standard errors."""
    assert false_differences(effect, count, clustered=True) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_cells_of_one_data_set_taken_as_independent_would_tell_them_apart_often():
    assert false_differences(1.0, 10, clustered=False) > 0.3


def test_nothing_is_tested_over_one_data_set():
    found = ranked([[1, 2, 3], [1, 2, 3], [1, 2, 3]], ["a"] * 3)
    assert np.isnan([found.p_value, found.critical_difference, *found.low, *found.high]).all()
    assert not found.differs(0, 2)
    assert [sorted(group) for group in found.groups()] == [[0, 1, 2]]


def test_intervals_hold_the_expected_mean_rank_of_equal_methods():
    generator = np.random.default_rng(5)
    boards = [
        ranked(effects + generator.normal(size=(16, 6)), np.repeat(["a", "b", "c", "d"], 4), draws=20)
        for effects in (np.repeat(generator.normal(size=(4, 6)), 4, axis=0) for _ in range(1000))
    ]
    held = np.mean([((found.low <= 3.5) & (found.high >= 3.5)).mean() for found in boards])
    assert held == pytest.approx(0.95, abs=0.02)


def test_a_planted_order_is_recovered():
    generator = np.random.default_rng(6)
    orders, found_apart = 0, 0
    for _ in range(200):
        scores = np.array([0.0, 1.0, 2.0, 3.0]) + generator.normal(scale=0.4, size=(16, 4))
        found = ranked(scores, np.repeat(list("abcdefgh"), 2), draws=200)
        orders += found.order.tolist() == [3, 2, 1, 0]
        found_apart += found.differs(3, 0) and found.differs(2, 0) and found.differs(3, 1)
    assert orders >= 195
    assert found_apart >= 190


def test_groups_are_the_largest_runs_of_neighbors_that_are_not_told_apart():
    generator = np.random.default_rng(7)
    # two equal pairs far apart
    found = ranked(np.array([5.0, 5.0, 0.0, 0.0]) + generator.normal(scale=0.5, size=(40, 4)))
    assert [sorted(group) for group in found.groups()] == [[0, 1], [2, 3]]
    alike = ranked([[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2], [4, 1, 2, 3]])
    assert [sorted(group) for group in alike.groups()] == [[0, 1, 2, 3]]


def test_the_same_seed_gives_the_same_test():
    scores = np.random.default_rng(8).normal(size=(6, 5))
    first, again, other = (ranked(scores, seed=seed) for seed in (0, 0, 1))
    assert first.p_value == again.p_value != other.p_value


@pytest.mark.parametrize("scores", [np.ones((1, 3)), np.ones((3, 1))])
def test_too_few_cells_or_methods_are_refused(scores):
    with pytest.raises(ValueError, match="^scores: must be"):
        ranked(scores)


def test_scores_that_do_not_fit_the_methods_or_the_data_sets_are_refused():
    with pytest.raises(ValueError, match="^scores: must be"):
        rank_methods(named(3), np.ones((3, 2)), ["a", "b", "c"])
    with pytest.raises(ValueError, match="^data_sets: must be one for each of 3 cells, got 2"):
        ranked(np.ones((3, 2)), ["a", "b"])
