"""Estimates, intervals and tests against closed forms and SciPy; their error rates are in test_error_rates.py."""

import itertools

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from analysis.statistics import (
    detectable_effect,
    draws_needed,
    failing_share,
    holm,
    paired_effect,
    rank_association,
    trend,
    units_needed,
)
from analysis.statistics.reversal import reversal_p

pytestmark = pytest.mark.usefixtures("quick_judgements")

LEVELS = np.tile(np.repeat([0.0, 0.2, 0.4, 0.6], 3), 4)
SERIES = np.repeat(list("abcd"), 12)


def test_of_one_cell_the_answer_is_students_t_test():
    values = np.random.default_rng(0).normal(0.5, 1, size=6)
    found = paired_effect(["a"] * 6, values, margin=0.8).these
    expected = scipy.stats.ttest_1samp(values, 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    sides = [
        scipy.stats.ttest_1samp(values, -0.8, alternative="greater").pvalue,
        scipy.stats.ttest_1samp(values, 0.8, alternative="less").pvalue,
    ]
    assert found.equivalence_p == pytest.approx(2 * max(sides))


def test_every_cell_counts_the_same_whatever_its_number_of_seeds():
    found = paired_effect(["a"] * 8 + ["b"] * 2, [1.0] * 8 + [3.0, 3.0])
    assert found.these.estimate == found.like_these.estimate == 2.0


def test_the_standard_error_of_these_cells_has_each_cells_own_spread():
    values = np.random.default_rng(2).normal(size=(3, 4)) * np.array([[1], [2], [5]])
    found = paired_effect(np.repeat(list("abc"), 4), values.ravel()).these
    assert found.standard_error == pytest.approx(np.sqrt((values.var(1, ddof=1) / 4).sum()) / 3)
    assert 3 <= found.freedom <= 9


def test_against_a_margin_the_nearest_value_of_the_null_is_tested():
    values = np.random.default_rng(4).normal(2, 1, size=6)
    found = paired_effect(["a"] * 6, values, null=(-1.0, 1.0)).these
    assert found.p_value == pytest.approx(scipy.stats.ttest_1samp(values, 1.0).pvalue)
    assert paired_effect(["a"] * 6, values - values.mean(), null=(-1.0, 1.0)).these.p_value == 1


def test_identical_values_are_judged_by_their_number():
    # chance puts each of n values on one side of the median with probability 1/2
    found = paired_effect(["a"] * 5, [0.0] * 5, margin=0.1).these
    assert found.equivalence_p == pytest.approx(2 * 0.5**5)
    assert paired_effect(["a"] * 5, [1.0] * 5).these.p_value == pytest.approx(2 * 0.5**5)


@pytest.mark.parametrize(
    ("means", "null", "margin", "p_value", "equivalence_p"),
    [
        ([3.0, 1.0], (0.0, 0.0), 4.0, 2 * 0.5**5, 2 * 0.5**5),
        ([-3.0, -1.0], (0.0, 0.0), 2.0, 2 * 0.5**5, np.nan),
        # a cell at zero, or on the other side
        ([3.0, 0.0], (0.0, 0.0), 4.0, np.nan, 2 * 0.5**5),
        ([3.0, -1.0], (0.0, 0.0), 2.0, np.nan, np.nan),
        ([1.0, 0.0, 0.0], (0.0, 0.0), 0.02, np.nan, np.nan),
        ([0.0, 0.0], (0.0, 0.0), 0.5, 1.0, 2 * 0.5**5),
        # the mean lies within the margin, but not each cell
        ([5.0, 5.0, -1.0], (-4.0, 4.0), 4.0, np.nan, np.nan),
        ([10.0, -8.0], (-2.0, 2.0), 2.0, np.nan, np.nan),
        ([1.0, -1.0], (-2.0, 2.0), 2.0, 1.0, 2 * 0.5**5),
        # 0.1 + 0.2 - 0.3 is rounding
        ([3.0, 0.1 + 0.2 - 0.3], (0.0, 0.0), 4.0, np.nan, 2 * 0.5**5),
    ],
)
def test_without_spread_a_verdict_rests_on_cells_that_all_lie_on_one_side(
    means, null, margin, p_value, equivalence_p
):
    cells = np.repeat(np.arange(len(means)), 5)
    found = paired_effect(cells, np.repeat(means, 5), null=null, margin=margin).these
    assert (found.p_value, found.equivalence_p) == pytest.approx((p_value, equivalence_p), nan_ok=True)


@pytest.mark.parametrize("seeds", range(2, 9))
def test_without_spread_a_cell_that_is_sure_does_not_speak_for_one_that_is_not(seeds):
    """The mean of both cells is below zero, and still all values are above it in one of 2^seeds cases."""
    wrong = 0.0
    for chosen in itertools.product([1.0, -3.0], repeat=seeds):
        found = paired_effect(["a"] * seeds + ["b"] * seeds, [1.0] * seeds + list(chosen)).these
        if found.is_without_spread and found.estimate > 0 and found.p_value <= 0.05:
            wrong += 0.5**seeds
    assert wrong <= 0.025


@pytest.mark.parametrize("seeds", range(2, 9))
@pytest.mark.parametrize("fair", [1, 2, 3])
def test_without_spread_opposite_signs_are_rarely_found_where_there_are_none(seeds, fair):
    """One cell is above zero; the values of the others lie above or below it by chance."""
    wrong = 0.0
    for signs in itertools.product([1.0, -1.0], repeat=fair):
        cells = np.repeat(np.arange(fair + 1), seeds)
        found = paired_effect(cells, np.repeat([1.0, *signs], seeds))
        wrong += 0.5 ** (seeds * fair) * (found.reversal_p <= 0.05)
    assert wrong <= 0.05


def test_without_spread_opposite_signs_take_as_many_seeds_as_chance_asks_for():
    found = [paired_effect(["a"] * n + ["b"] * n, [1.0] * n + [-1.0] * n).reversal_p for n in (2, 5, 6)]
    assert found == pytest.approx([2 * 0.5**2, 2 * 0.5**5, 2 * 0.5**6])


def permutation_p(levels, values):
    """The exact two-sided p-value of a slope over all orders of the values."""
    levels = np.asarray(levels) - np.mean(levels)
    slopes = np.array([levels @ order for order in itertools.permutations(values)])
    return np.mean(np.abs(slopes) >= abs(slopes[0]) - 1e-12)


@pytest.mark.parametrize(
    ("levels", "values"),
    [
        ([0, 0, 0, 0.4, 0.4, 0.4], [0, 0, 0, 1, 1, 1]),
        ([0, 0, 0, 0, 0.4, 0.4], [0, 0, 0, 0, 1, 1]),
        ([0, 0, 0.2, 0.2, 0.4, 0.4], [1, 1, 2, 2, 3, 3]),
        ([0, 0, 0, 0.4, 0.4, 0.4], [1, 1, 1, 1, 1, 1]),
    ],
)
def test_without_spread_no_slope_has_a_smaller_p_value_than_that_of_all_orders(levels, values):
    found = trend(["a"] * len(levels), levels, values, margin=0.5).these
    assert found.method == "none, as the runs have no spread"
    assert not found.p_value < permutation_p(levels, values)
    assert not found.equivalence_p < 0.05


@pytest.mark.parametrize(
    "found",
    [
        paired_effect(["a"] * 5 + ["b"] * 5, [1.0] * 5 + [2.0] * 5),
        trend(["a"] * 6 + ["b"] * 6, [0, 0, 0, 1, 1, 1] * 2, [0, 0, 0, 1, 1, 1] * 2),
        paired_effect(np.repeat(list("abcdef"), 2), [1.0, 3.0] * 6),
    ],
)
def test_without_spread_there_is_no_interval(found):
    alike = [test for test in (found.these, found.like_these) if test.is_without_spread]
    assert alike
    for test in alike:
        assert np.isnan([test.low, test.high]).all()
        assert "have no spread" in test.method
    if found.these in alike:
        assert np.isnan([(part.low, part.high) for part in found.parts]).all()


def test_the_test_of_opposite_signs_has_gail_and_simons_critical_values():
    # Gail and Simon 1985, table 1, at a level of 5%
    for places, critical in ((2, 2.71), (3, 4.23), (4, 5.43), (5, 6.50), (6, 7.48)):
        numbers = np.array([100.0, *[-np.sqrt(critical / (places - 1))] * (places - 1)])
        assert reversal_p(numbers, np.ones(places), 1e9) == pytest.approx(0.05, abs=0.001)


def test_numbers_of_one_sign_never_reverse():
    assert reversal_p(np.array([1.0, 2.0, 0.0]), np.ones(3), 6.0) == 1


def test_the_slope_of_one_series_is_that_of_least_squares():
    values = np.random.default_rng(5).normal(size=12)
    found = trend(["a"] * 12, LEVELS[:12], values).these
    assert found.estimate == pytest.approx(scipy.stats.linregress(LEVELS[:12], values).slope)
    groups = values.reshape(4, 3).var(1, ddof=1)
    centered = np.array([-0.3, -0.1, 0.1, 0.3])
    assert found.standard_error == pytest.approx(np.sqrt((centered**2 @ groups) / 3) / (centered @ centered))


def test_without_repeated_runs_the_slopes_of_several_series_are_the_values_of_the_test():
    values = np.random.default_rng(6).normal(0.5, 1, size=(4, 5))
    found = trend(np.repeat(list("abcd"), 5), np.tile(np.arange(5), 4), values.ravel()).these
    slopes = [scipy.stats.linregress(np.arange(5), of_series).slope for of_series in values]
    assert (found.units, found.counted) == (4, "series")
    assert found.p_value == pytest.approx(scipy.stats.ttest_1samp(slopes, 0).pvalue)


def test_without_repeated_runs_the_slope_of_one_series_has_no_test():
    """The spread may grow with the rate, and one run a rate does not show it."""
    found = trend(["a"] * 5, np.arange(5), [0.0, 1, 2, 3, 4]).these
    assert (found.estimate, found.method) == (1, "too few runs")
    assert np.isnan([found.p_value, found.low, found.high]).all()


def test_slopes_of_further_series_are_the_only_evidence_of_data_like_these():
    values = np.random.default_rng(7).normal(size=48) + LEVELS
    slopes = [scipy.stats.linregress(LEVELS[:12], v).slope for v in values.reshape(4, 12)]
    found = trend(SERIES, LEVELS, values)
    assert [part.estimate for part in found.parts] == pytest.approx(slopes)
    assert found.like_these.p_value == pytest.approx(scipy.stats.ttest_1samp(slopes, 0).pvalue)


@pytest.mark.parametrize("rates", [(0.25, 0.5, 0.75), (0.2, 0.3, 0.4), (0.0, 0.2, 0.4)])
def test_a_slope_counts_the_runs_at_all_rates(rates):
    """The weight of the middle rate is 0, or rounding."""
    values = np.random.default_rng(3).normal(size=24)
    found = trend(np.repeat(["a", "b"], 12), np.tile(np.repeat(rates, 4), 2), values)
    assert [part.samples for part in found.parts] == [12, 12]


def test_a_difference_between_data_sets_is_no_trend_within_them():
    levels = np.tile([0.2, 0.4, 0.6], 4)
    data_set = np.repeat(["a", "b"], 6)
    values = levels + np.where(data_set == "b", 100.0, 0.0) + 0.01 * np.random.default_rng(0).normal(size=12)
    assert trend(data_set, levels, values).these.estimate == pytest.approx(1, abs=0.1)


def associated(n, cells, seed=0, **options):
    """n methods, each a family, in some cells, with x and y that share half of their variance."""
    rng = np.random.default_rng(seed)
    methods = np.tile(np.arange(n), cells)
    x = rng.normal(size=n * cells)
    y = x + rng.normal(size=n * cells)
    return rank_association(np.repeat(np.arange(cells), n), methods, methods, x, y, **options), x, y


def test_tau_is_kendalls_and_the_test_that_of_all_orders():
    found, x, y = associated(6, 1)
    assert found.these.estimate == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    orders = itertools.permutations(range(6))
    taus = np.array([scipy.stats.kendalltau(x[list(order)], y).statistic for order in orders])
    sides = [np.mean(taus >= found.these.estimate - 1e-9), np.mean(taus <= found.these.estimate + 1e-9)]
    assert found.these.p_value == pytest.approx(min(1, 2 * min(sides)))


def test_tau_is_averaged_over_cells():
    found, x, y = associated(8, 3)
    taus = [
        scipy.stats.kendalltau(a, b).statistic for a, b in zip(x.reshape(3, 8), y.reshape(3, 8), strict=True)
    ]
    assert found.these.estimate == pytest.approx(np.mean(taus))
    assert [part.estimate for part in found.parts] == pytest.approx(taus)


def test_the_jackknife_is_that_of_leaving_out_one_family_at_a_time():
    found, x, y = associated(9, 1)
    whole = scipy.stats.kendalltau(x, y).statistic
    pseudo = [
        9 * whole - 8 * scipy.stats.kendalltau(np.delete(x, i), np.delete(y, i)).statistic for i in range(9)
    ]
    assert found.these.standard_error == pytest.approx(np.std(pseudo, ddof=1) / 3)


@pytest.mark.parametrize("agree", [True, False])
def test_there_is_no_standard_error_beside_an_interval_where_leaving_out_a_family_changes_nothing(agree):
    names = np.arange(6)
    # of the second order, each family takes part in as many discordant pairs as any other
    y = names if agree else [1, 0, 3, 2, 5, 4]
    found = rank_association(np.zeros(6), names, names, names, y).these
    assert found.low < found.estimate <= found.high
    assert np.isnan(found.standard_error)
    assert not found.is_without_spread


def test_the_partial_correlation_is_that_of_residuals_of_ranks():
    rng = np.random.default_rng(9)
    x, y, z = rng.normal(size=(3, 10))
    names = np.arange(10)
    found = rank_association(np.zeros(10), names, names, x, y, given=z)
    rank = scipy.stats.rankdata(z)
    held = np.column_stack([np.ones(10), z, rank, rank**2])
    left = [
        ranks - held @ np.linalg.lstsq(held, ranks, rcond=None)[0]
        for ranks in map(scipy.stats.rankdata, (x, y))
    ]
    assert found.these.estimate == pytest.approx(np.corrcoef(*left)[0, 1])


def test_kin_are_one_family():
    # twelve methods of three families are three units, which no test can tell from chance
    rng = np.random.default_rng(10)
    methods, families = np.arange(12), np.repeat(list("abc"), 4)
    found = rank_association(np.zeros(12), methods, families, *rng.normal(size=(2, 12)))
    assert (found.these.units, found.these.method) == (3, "too few families of methods")
    x, y = rng.normal(size=(2, 12))
    of_pairs = rank_association(np.zeros(12), methods, np.repeat(np.arange(6), 2), x, y).these
    means = [v.reshape(6, 2).mean(1) for v in (x, y)]
    assert (of_pairs.units, of_pairs.estimate) == (
        6,
        pytest.approx(scipy.stats.kendalltau(*means).statistic),
    )


def test_seeds_are_no_new_evidence_of_how_methods_go_together():
    # four methods whose ranks agree: 2 of 24 orders are as extreme, however many seeds each has
    methods, values = np.repeat(list("abcd"), 100), np.repeat([1.0, 2.0, 3.0, 4.0], 100)
    found = rank_association(np.zeros(400), methods, methods, values, values).these
    assert (found.estimate, found.units) == (pytest.approx(1), 4)
    assert found.p_value == found.smallest_p == pytest.approx(2 / 24)


def test_an_association_that_reverses_between_cells_is_found():
    rng = np.random.default_rng(11)
    x = rng.normal(size=(4, 8))
    y = x * np.array([[1], [1], [1], [-1]]) + 0.1 * rng.normal(size=(4, 8))
    methods = np.tile(np.arange(8), 4)
    found = rank_association(np.repeat(np.arange(4), 8), methods, methods, x.ravel(), y.ravel())
    assert found.reversal_p < 0.01


def test_the_share_of_failures_has_clopper_and_pearsons_interval():
    fails = np.repeat([1.0, 0.0], [5, 95])
    found = failing_share(np.arange(100), np.zeros(100), fails, allowed=0.01).these
    expected = scipy.stats.binomtest(5, 100).proportion_ci()
    assert (found.estimate, found.low, found.high) == pytest.approx((0.05, expected.low, expected.high))
    assert found.p_value == pytest.approx(2 * scipy.stats.binom.sf(4, 100, 0.01))


def test_runs_on_one_draw_are_no_independent_failures():
    # six methods on each of ten draws: one bad draw
    draws = np.repeat(np.arange(10), 6)
    found = failing_share(draws, np.zeros(60), (draws == 0).astype(float), allowed=0.05).these
    assert (found.units, found.estimate) == (10, pytest.approx(0.1))
    assert found.p_value > 0.5


def test_so_many_draws_without_a_failure_show_that_failures_are_rare():
    needed = draws_needed(0.05, 0.05)
    p_values = [
        failing_share(np.arange(n), np.zeros(n), np.zeros(n), allowed=0.05).these.p_value
        for n in (needed - 1, needed)
    ]
    assert p_values[0] >= 0.05 > p_values[1]


@pytest.mark.parametrize(
    "statistic",
    [
        lambda v: paired_effect(["a"] * len(v), v),
        lambda v: trend(["a"] * len(v), np.arange(len(v)), v),
        lambda v: rank_association(
            np.zeros(len(v)), np.arange(len(v)), np.arange(len(v)), np.arange(len(v)), v
        ),
    ],
)
@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan, np.nan], [0.0] * 8])
def test_too_little_or_constant_data_finds_no_sign(statistic, values):
    assert not statistic(np.array(values)).these.p_value < 0.05


def test_pairs_without_a_number_are_counted():
    found = paired_effect(["a"] * 5, [1.0, 2.0, np.nan, np.inf, 1.5])
    assert (found.these.units, found.lost) == (3, 2)


def test_holms_correction_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 9):
        p_values = rng.uniform(size=count) ** 3
        expected = multipletests(p_values, method="holm")[1] if count else p_values
        np.testing.assert_allclose(holm(p_values), expected)


def test_holms_correction_skips_what_could_not_be_tested():
    np.testing.assert_equal(holm(np.array([0.01, np.nan, 0.02])), [0.02, np.nan, 0.02])


@pytest.mark.parametrize(("seeds", "level"), [(9, 0.05), (5, 0.05), (12, 0.005)])
def test_an_effect_of_the_detectable_size_is_found_four_times_in_five(seeds, level):
    rng = np.random.default_rng(13)
    test = paired_effect(["a"] * seeds, rng.normal(size=seeds)).these
    # in standard deviations of one pair
    size = detectable_effect(test, level) / (test.standard_error * seeds**0.5)
    found = [scipy.stats.ttest_1samp(size + rng.normal(size=seeds), 0).pvalue < level for _ in range(400)]
    # 400 draws at 80% have a standard deviation of 0.02
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)
    assert units_needed(test, detectable_effect(test, level), level) == seeds
