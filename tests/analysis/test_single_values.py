"""A cell of one value says nothing of its spread, and borrows none of other cells."""

import numpy as np
import pytest

from analysis.claims.effect import CONTRADICTED_HERE, MIXED, SUPPORTED_HERE, Effect
from analysis.claims.wording import conclusion
from analysis.statistics import paired_effect, trend

pytestmark = pytest.mark.usefixtures("quick_judgements")

RATES = np.array([0.0, 0.2, 0.4, 0.6])
DRAWS = 80
MOST = 0.05 + 3 * (0.05 * 0.95 / DRAWS) ** 0.5
FIVE = np.array([1.0, 1.2, 0.9, 1.1, 0.8])


def judged(finding):
    return Effect(name="", predicted=1, unit="", finding=finding)


def shares(draw):
    """The shares of studies with a sign, and of those with opposite signs, where there is no effect."""
    rng = np.random.default_rng(0)
    verdicts = [judged(draw(rng)).verdict for _ in range(DRAWS)]
    found = [verdict in (SUPPORTED_HERE, CONTRADICTED_HERE) for verdict in verdicts]
    return np.mean(found), np.mean([verdict == MIXED for verdict in verdicts])


@pytest.mark.parametrize(
    ("seeds", "spread"),
    [((5, 5, 1), (1, 3, 5)), ((5, 1, 1), (0.2, 1, 1)), ((3, 1), (1, 4)), ((8, 8, 1), (0.5, 1, 4))],
)
def test_differences_of_a_study_that_stopped_halfway_have_no_false_sign(seeds, spread):
    cells = np.repeat(np.arange(len(seeds)), seeds)
    found, _ = shares(
        lambda rng: paired_effect(
            cells, np.repeat(spread, seeds) * rng.normal(size=len(cells)), data_sets=0 * cells
        )
    )
    assert found <= MOST


@pytest.mark.parametrize("series", [1, 6])
def test_slopes_of_a_study_that_stopped_halfway_have_no_false_sign_and_no_opposite_ones(series):
    seeds = (5, 3, 1, 1)
    level, spread = (
        np.tile(np.repeat(of_rates, seeds), series) for of_rates in (RATES, (1.0, 1.0, 2.0, 3.0))
    )
    names = np.repeat(np.arange(series), sum(seeds))
    found, mixed = shares(lambda rng: trend(names, level, spread * rng.normal(size=len(level))))
    assert max(found, mixed) <= MOST


def test_what_is_said_of_these_cells_leaves_out_those_of_one_value():
    found = paired_effect(["a"] * 5 + ["b"] * 5 + ["c"], [*FIVE, *FIVE, 100.0], data_sets=["s"] * 11)
    alone = paired_effect(["a"] * 5 + ["b"] * 5, [*FIVE, *FIVE], data_sets=["s"] * 10)
    assert (found.these, found.places, found.parts) == (alone.these, alone.places, alone.parts)
    assert found.single == ("c",)
    said = conclusion(judged(found))
    assert "c has one value, which says nothing of its spread: left out of the test." in said
    assert "About these 2 cells" in said


def test_data_like_these_are_judged_by_the_means_of_all_cells():
    values = np.random.default_rng(1).normal(1, 1, size=18)
    seeds = np.tile([2, 1], 6)
    cells, data_sets = np.repeat(np.arange(12), seeds), np.repeat(np.arange(6), 3)
    found = paired_effect(cells, values, data_sets=data_sets)
    means = [(of_one[:2].mean() + of_one[2]) / 2 for of_one in values.reshape(6, 3)]
    assert found.like_these.estimate == pytest.approx(np.mean(means))
    assert (found.places, len(found.single), found.data_sets, found.deciding.units) == (6, 6, 6, 6)
    assert "left out of what is said of these cells" in conclusion(judged(found))


def test_a_slope_is_that_of_the_repeated_levels():
    rng = np.random.default_rng(2)
    level = np.array([0.0, 0.0, 0.2, 0.2, 0.4, 0.4, 0.6])
    value = rng.normal(size=7)
    found, alone = (trend(["a"] * count, level[:count], value[:count]) for count in (7, 6))
    assert (found.these, found.single) == (alone.these, ("0.6",))


def test_one_repeated_level_has_no_slope_to_test():
    found = trend(["a"] * 5, [0.0, 0.0, 0.2, 0.4, 0.6], [1.0, 2.0, 3.0, 4.0, 6.0])
    assert np.isfinite(found.these.estimate)
    assert np.isnan(found.these.p_value)
    assert "without it there is no test of these cells" in conclusion(judged(found))


def test_cells_that_share_one_draw_borrow_no_spread_of_other_cells():
    # two pairs of cells; of the second, one seed is in both
    cells = np.array(list("aaabbb") + list("ccdd"))
    draws = ["1", "2", "3"] * 2 + ["5", "6", "5", "7"]
    values = np.random.default_rng(3).normal(size=10)
    found = paired_effect(cells, values, draws=draws)
    alone = paired_effect(cells[:6], values[:6], draws=draws[:6])
    assert (found.these, found.single) == (alone.these, ("c", "d"))


def test_where_every_cell_has_one_value_data_sets_alone_are_judged():
    values = np.random.default_rng(4).normal(size=7)
    found = paired_effect(np.arange(7), values)
    assert (found.single, found.data_sets, np.isfinite(found.like_these.p_value)) == ((), 7, True)
    assert found.these.method == "too few pairs"
