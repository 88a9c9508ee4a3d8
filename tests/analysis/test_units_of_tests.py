"""The units of tests: data sets for the population, cells for those at hand, and seeds where cells share their runs."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis.statistics import (
    FEWEST_DATA_SETS,
    LIKE_THESE,
    THESE,
    conditional_information,
    failing_share,
    paired_effect,
    rank_association,
    trend,
)

pytestmark = pytest.mark.usefixtures("quick_judgements")

LEVELS = np.tile(np.repeat([0.0, 0.2, 0.4, 0.6], 3), 2)
SERIES = np.repeat(["a", "b"], 12)


@pytest.mark.parametrize("rates", [1, 3])
def test_of_the_population_the_answer_is_students_t_test_of_the_means_of_data_sets(rates):
    values = np.random.default_rng(1).normal(0.5, 1, size=(8, rates, 4))
    cells = np.repeat(np.arange(8 * rates), 4)
    found = paired_effect(cells, values.ravel(), data_sets=cells // rates).like_these
    expected = scipy.stats.ttest_1samp(values.mean((1, 2)), 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.units, found.counted) == (8, "data sets")


def test_every_cell_of_a_data_set_counts_the_same_and_every_data_set_too():
    found = paired_effect(list("aaabbcc"), [1.0, 1, 1, 3, 3, 10, 10], data_sets=list("ssssstt"))
    assert found.like_these.estimate == pytest.approx(((1 + 3) / 2 + 10) / 2)
    assert found.these.estimate == pytest.approx((1 + 3 + 10) / 3)
    assert (found.places, found.data_sets) == (3, 2)


SHARED_SEEDS = np.tile(np.arange(8), 3)


def test_runs_of_one_draw_in_several_cells_are_one_unit_with_the_mean_of_the_cells():
    values = np.random.default_rng(2).normal(0.5, 1, size=(3, 8))
    found = paired_effect(np.repeat(list("abc"), 8), values.ravel(), draws=SHARED_SEEDS)
    expected = scipy.stats.ttest_1samp(values.mean(0), 0)
    assert found.these.p_value == pytest.approx(expected.pvalue)
    assert (found.these.low, found.these.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.these.units, found.these.counted, found.places) == (8, "seeds", 3)
    assert [part.samples for part in found.parts] == [8, 8, 8]


def test_cells_that_share_no_draws_stay_units_of_their_own():
    values, cells = np.random.default_rng(3).normal(size=24), np.repeat(list("abc"), 8)
    alone = paired_effect(cells, values)
    assert paired_effect(cells, values, draws=np.arange(24)) == alone
    pair = paired_effect(cells, values, draws=np.r_[np.arange(8), np.arange(8), np.arange(8, 16)]).these
    of_pair, of_last = values[:16].reshape(2, 8).mean(0).var(ddof=1), values[16:].var(ddof=1)
    assert pair.standard_error == pytest.approx(np.sqrt((4 * of_pair + of_last) / 8) / 3)
    assert pair.units == 16


def test_a_draw_that_is_not_in_all_cells_that_share_draws_does_not_count():
    values = np.random.default_rng(4).normal(size=(2, 5))
    cells, draws = ["a"] * 5 + ["b"] * 6, [*range(5), *range(5), 9]
    found = paired_effect(cells, [*values.ravel(), 100.0], draws=draws).these
    assert found.estimate == pytest.approx(values.mean())
    assert found.units == 5


def test_where_no_draw_is_in_all_cells_that_share_draws_there_is_no_test():
    found = paired_effect(list("aabbcc"), [1.0, 2, 1, 2, 1, 2], draws=[0, 1, 1, 2, 2, 3]).these
    assert (found.method, found.estimate) == ("too few seeds", 1.5)
    assert np.isnan(found.p_value)


def test_data_sets_that_share_draws_are_one_of_the_population():
    values = np.random.default_rng(5).normal(size=(2, 4, 3))
    cells, data_sets = np.repeat(np.arange(8), 3), np.repeat(["fixed", "redrawn"], 12)
    found = paired_effect(cells, values.ravel(), data_sets=data_sets, draws=np.tile(np.arange(12), 2))
    assert (found.data_sets, found.like_these.estimate) == (1, pytest.approx(values.mean()))


def test_slopes_of_series_that_share_draws_have_the_error_of_their_mean():
    shared = np.random.default_rng(6).normal(size=(4, 3))
    values = np.stack([shared, shared]) + LEVELS[:12].reshape(4, 3)
    found = trend(SERIES, LEVELS, values.ravel(), draws=np.tile(np.arange(12), 2))
    one = trend(SERIES[:12], LEVELS[:12], values[0].ravel())
    assert found.these.standard_error == pytest.approx(one.these.standard_error)
    assert found.these.p_value == pytest.approx(one.these.p_value)
    assert (found.places, found.data_sets) == (2, 1)


def test_a_draw_that_several_cells_share_shows_no_reversal_more_often():
    """Three cells of no effect share their runs, and one is far from zero: a fourth of the signs would be reversals."""
    rng = np.random.default_rng(7)
    found = [
        paired_effect(
            np.repeat(list("abcd"), 8),
            np.concatenate([np.tile(rng.normal(size=8), 3), 9 + rng.normal(size=8)]),
            draws=[*SHARED_SEEDS, *range(8, 16)],
        ).reversal_p
        for _ in range(400)
    ]
    assert np.mean(np.array(found) < 0.05) <= scipy.stats.binom.ppf(0.999, 400, 0.05) / 400


@pytest.mark.parametrize(
    ("data_sets", "estimand"), [(FEWEST_DATA_SETS - 1, THESE), (FEWEST_DATA_SETS, LIKE_THESE)]
)
@pytest.mark.parametrize("rates", [1, 3])
def test_the_population_is_judged_from_a_number_of_data_sets_on(data_sets, rates, estimand):
    cells = np.repeat(np.arange(data_sets * rates), 3)
    values = np.random.default_rng(3).normal(size=len(cells))
    assert paired_effect(cells, values, data_sets=cells // rates).deciding.estimand == estimand


@pytest.mark.parametrize("data_sets", [FEWEST_DATA_SETS - 1, FEWEST_DATA_SETS])
def test_associations_too_are_judged_by_their_data_sets(data_sets):
    rng = np.random.default_rng(8)
    cells, methods = np.repeat(np.arange(3 * data_sets), 7), np.tile(np.arange(7), 3 * data_sets)
    x, y = rng.normal(size=(2, len(cells)))
    found = rank_association(cells + 100, methods, methods, x, y, data_sets=cells // 3)
    taus = [part.estimate for part in found.parts]
    assert found.data_sets == data_sets
    assert found.deciding.estimand == (LIKE_THESE if data_sets == FEWEST_DATA_SETS else THESE)
    over = scipy.stats.ttest_1samp(np.reshape(taus, (data_sets, 3)).mean(1), 0)
    assert found.like_these.p_value == pytest.approx(max(over.pvalue, found.these.p_value))


def test_permuted_methods_and_draws_say_nothing_of_other_data():
    rng, cells, methods = np.random.default_rng(9), np.repeat(np.arange(8), 6), np.tile(np.arange(6), 8)
    hyper = pd.DataFrame({"rho": methods % 3})
    told = conditional_information(cells, methods, *rng.normal(size=(2, 48)), hyper)
    held = failing_share(np.arange(80), np.arange(80) % 8, np.zeros(80), allowed=0.05)
    for found in (told, held):
        assert (found.places, found.deciding.estimand) == (8, THESE)
        assert np.isnan(found.like_these.p_value)


def test_one_seed_a_cell_says_nothing_of_these_cells_and_something_of_their_population():
    found = paired_effect(list("abcdefg"), np.arange(1.0, 8.0))
    assert np.isnan(found.these.p_value)
    assert found.like_these.p_value < 0.01
    assert np.isnan(found.reversal_p)
