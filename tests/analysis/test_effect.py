"""How findings become verdicts."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.claims.coverage import DIVERGED, NO_VALUE, NOT_CONVERGED, Coverage
from analysis.claims.effect import (
    CONTRADICTED,
    CONTRADICTED_HERE,
    EQUIVALENT,
    EQUIVALENT_HERE,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    SUPPORTED,
    SUPPORTED_HERE,
    VACUOUS,
    Effect,
    combined_verdict,
    corrected,
)
from analysis.claims.limits import limits_of, limits_of_difference
from analysis.claims.prediction import cell_names
from analysis.claims.quantities import QUANTITIES
from analysis.claims.wording import conclusion, deciding_p, p_value, without_number
from analysis.statistics import POWER, failing_share, paired_effect, trend, units_for_equivalence
from tests.analysis.synthetic_study import judged, table


def effect_of(means, predicted=1, margin=np.nan, null=(0.0, 0.0), noise=0.1, seeds=4, **fields):
    """The effect of cells with these true means."""
    rng = np.random.default_rng(0)
    cells = np.repeat([f"cell {i}" for i in range(len(means))], seeds)
    values = np.repeat(means, seeds) + noise * rng.normal(size=len(cells))
    finding = paired_effect(cells, values, margin=margin, null=null)
    return Effect(name="x", predicted=predicted, unit="", finding=finding, margin=margin, null=null, **fields)


FEW, MANY = 3, 8


@pytest.mark.parametrize(
    ("means", "options", "verdict"),
    [
        ([1.0] * MANY, {}, SUPPORTED),
        ([1.0] * FEW, {}, SUPPORTED_HERE),
        ([-1.0] * MANY, {}, CONTRADICTED),
        ([-1.0] * FEW, {}, CONTRADICTED_HERE),
        ([1.0] * MANY, {"predicted": -1}, CONTRADICTED),
        ([0.0] * MANY, {"margin": 0.5}, EQUIVALENT),
        ([0.0] * FEW, {"margin": 0.5}, EQUIVALENT_HERE),
        ([0.0] * MANY, {"noise": 2.0}, INCONCLUSIVE),
        ([1.0, -1.0, 1.0], {}, MIXED),
        ([4.0] * 3 + [-4.0], {}, MIXED),
        ([1.0] * MANY + [-1.0], {}, MIXED),
        # a reversal too small to matter is equivalence, and one that matters on one side only is a sign
        ([0.2, -0.2] * 4, {"margin": 1.0}, EQUIVALENT),
        ([2.0, 2.0, -0.3], {"margin": 0.5}, SUPPORTED_HERE),
        # where no difference is predicted
        ([0.0] * MANY, {"predicted": 0, "margin": 0.5, "null": (-0.5, 0.5)}, SUPPORTED),
        ([1.0] * MANY, {"predicted": 0, "margin": 0.5, "null": (-0.5, 0.5)}, CONTRADICTED),
        ([0.5] * MANY, {"predicted": 0, "margin": 0.5, "null": (-0.5, 0.5)}, INCONCLUSIVE),
        # not lower than by the margin
        ([-0.1] * MANY, {"null": (-0.5, -0.5)}, SUPPORTED),
        ([-1.0] * MANY, {"null": (-0.5, -0.5)}, CONTRADICTED),
        ([-0.5] * MANY, {"null": (-0.5, -0.5)}, INCONCLUSIVE),
    ],
)
def test_a_verdict_follows_from_the_true_means(means, options, verdict):
    assert effect_of(means, **options).verdict == verdict


def test_slopes_that_reverse_are_mixed():
    levels, series = np.tile(np.repeat([0.0, 0.2, 0.4, 0.6], 3), 4), np.repeat(list("abcd"), 12)
    for seed in range(20):
        noise = 0.5 * np.random.default_rng(seed).normal(size=48)
        finding = trend(series, levels, np.repeat([4, 4, 4, -4], 12) * levels + noise)
        assert Effect(name="x", predicted=1, unit="", finding=finding).verdict == MIXED


def test_a_reversal_that_outlasts_no_correction_forbids_a_sign():
    effect = effect_of([1.0, 1.0, -0.15], seeds=5)
    alone = replace(effect, adjusted=(1e-6, np.nan, 0.04))
    assert 0 < effect.finding.reversal_p < 0.05
    assert alone.verdict == MIXED
    open_ = replace(effect, adjusted=(1e-6, np.nan, 0.2), tests=5)
    assert open_.verdict == INCONCLUSIVE
    assert "The sign may depend on the cell" in conclusion(open_)


@pytest.mark.parametrize(
    ("means", "options", "index"),
    [
        ([1.0] * MANY, {}, 0),
        ([0.0] * MANY, {"margin": 0.5}, 1),
        ([1.0, -1.0, 1.0], {}, 2),
        ([0.0] * MANY, {"predicted": 0, "margin": 0.5, "null": (-0.5, 0.5)}, 1),
        ([1.0] * MANY, {"predicted": 0, "margin": 0.5, "null": (-0.5, 0.5)}, 0),
        ([0.0] * MANY, {"noise": 2.0}, 0),
    ],
)
def test_the_p_value_that_is_printed_is_the_one_that_decides(means, options, index):
    effect = effect_of(means, **options)
    assert effect.deciding_p == effect.p_values[index]
    decided = effect.verdict != INCONCLUSIVE
    assert (effect.deciding_p < 0.05) == decided


@pytest.mark.parametrize(
    ("means", "options", "test"),
    [
        ([1.0] * MANY, {}, ""),
        ([0.0] * MANY, {"margin": 0.5}, ", within the margin"),
        ([1.0, -1.0, 1.0], {}, ", opposite signs"),
    ],
)
def test_a_p_value_that_is_not_of_the_printed_effect_names_its_test(means, options, test):
    effect = effect_of(means, **options)
    assert deciding_p(effect) == f"p < 0.001{test}"
    assert deciding_p(effect, letter=False) == f"< 0.001{test}"


def test_what_cannot_fail_is_vacuous_unless_it_fails():
    def share(fails):
        finding = failing_share(np.arange(100), np.arange(100) % 8, np.full(100, fails), allowed=0.05)
        return Effect(
            name="x", predicted=-1, unit="", finding=finding, null=(0.05, 0.05), vacuous=True
        ).verdict

    assert share(0.0) == VACUOUS
    assert share(1.0) == CONTRADICTED_HERE


def test_losses_forbid_a_verdict_and_the_rest_is_said():
    finding = paired_effect(["a"] * 7, [1.0, 1.1, 0.9, 1.0, 1.2, np.nan, np.nan])
    effect = Effect(name="x", predicted=1, unit="", finding=finding)
    assert effect.verdict == INCONCLUSIVE
    assert effect.verdict_of_the_rest == SUPPORTED_HERE
    assert "2 pairs lost" in conclusion(effect)
    assert "the 5 left would say: supported in these cells" in conclusion(effect)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [(DIVERGED, False), (NOT_CONVERGED, True), (NO_VALUE, False)],
)
def test_the_cause_of_a_loss_is_named(reason, remedy):
    finding = paired_effect(["a"] * 7, [1.0, 1.1, 0.9, 1.0, 1.2, 1.0, np.nan])
    effect = Effect("x", 1, "", finding=finding, coverage=Coverage(runs=7, reasons=(reason,)))
    said = conclusion(effect)
    assert f"1 pair lost ({reason}); the 6 left would say: supported in these cells." in said
    assert ("ncsam measure" in said) == remedy


def test_runs_that_did_not_converge_are_counted():
    effect = effect_of([1.0] * MANY, coverage=Coverage(runs=32, not_converged=3))
    assert "3 of 32 runs not converged" in conclusion(effect)


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ([1.0], "About this 1 cell of 1 data set; data like these are judged from 6 data sets on."),
        (
            [1.0] * FEW,
            "About these 3 cells of 3 data sets; data like these are judged from 6 data sets on.",
        ),
        (
            [1.0] * MANY,
            "About data like these 8 data sets; of the 8 cells themselves the 95% interval is [+",
        ),
    ],
)
def test_every_effect_says_what_it_is_about(means, words):
    assert conclusion(effect_of(means)).startswith(words)


def test_an_open_answer_says_what_it_would_take():
    said = conclusion(effect_of([0.0] * FEW, noise=3.0, margin=0.5))
    assert "would have been found four times in five with these 12 pairs" in said
    assert "To find one as large as the margin (0.5)" in said


def test_an_effect_that_its_unit_does_not_allow_is_not_said_to_be_findable():
    said = conclusion(effect_of([0.0] * FEW, noise=3.0, margin=0.5, limits=(-1.0, 1.0)))
    assert "These 12 pairs cannot decide this." in said
    assert "An effect of" not in said


def test_a_study_a_hundred_times_as_large_is_no_plan():
    said = conclusion(effect_of([0.0] * FEW, noise=30.0, margin=0.1))
    assert said.endswith("These 12 pairs cannot decide this.")
    assert "takes about" not in said


def test_differences_that_cancel_leave_no_rounding():
    one_cell = paired_effect(["a"] * 3, [0.1, 0.2, -0.1 - 0.2])
    two_cells = paired_effect(["a", "a", "b", "b"], [0.1, 0.5, -0.1, -0.5 + 1e-17])
    assert (one_cell.these.estimate, two_cells.these.estimate) == (0.0, 0.0)


def test_an_interval_ends_where_the_values_of_its_unit_end():
    wide = effect_of([0.9] * FEW, noise=1.0)
    cut = effect_of([0.9] * FEW, noise=1.0, limits=(-1.0, 1.0))
    assert (cut.estimate, cut.low) == (wide.estimate, wide.low)
    assert cut.high == 1.0 < wide.high
    # a unit that promises too much cuts no interval below its own estimate
    assert effect_of([3.0] * FEW, noise=1.0, limits=(-1.0, 1.0)).high == pytest.approx(3, abs=1)


@pytest.mark.parametrize(
    ("name", "limits", "of_difference"),
    [
        ("test_accuracy", (0, 1), (-1, 1)),
        ("draw_gain", (-1, 1), (-2, 2)),
        ("sam_clean_cosine", (-1, 1), (-2, 2)),
        ("gain_plus", (-2, 2), (-4, 4)),
        ("trace_observed", (-np.inf, np.inf), (-np.inf, np.inf)),
    ],
)
def test_the_unit_of_a_quantity_tells_which_values_it_can_have(name, limits, of_difference):
    assert limits_of(QUANTITIES[name]) == limits
    assert limits_of_difference(QUANTITIES[name]) == of_difference


def test_an_effect_without_a_number_says_which_runs_are_to_blame():
    lost = ("SGD, d, symmetric 40%, seed 0, 1: not converged", "SGD, d, symmetric 60%, seed 2: diverged")
    effect = Effect("x", 1, "", coverage=Coverage(missing=lost, runs=6, not_converged=2))
    said = without_number(effect)
    assert said == f"2 of 6 runs not converged; {lost[0]}; {lost[1]}"


@pytest.mark.parametrize("mean", [0.0, -0.00252, 1 / 3])
@pytest.mark.parametrize(("seeds", "cannot"), [(2, True), (12, False)])
def test_units_without_spread_plan_no_size(mean, seeds, cannot):
    """Their standard error is zero or rounding, by which any size would be found at once."""
    said = conclusion(effect_of([mean], noise=0.0, seeds=seeds, null=(-1.0, 1.0)))
    assert "The pairs have no spread, from which a size could be planned." in said
    assert ("2 pairs cannot decide" in said) == cannot
    assert "would have been found" not in said
    assert "takes about" not in said


@pytest.mark.parametrize(
    ("finding", "why"),
    [
        (
            paired_effect(["a"] * 5 + ["b"] * 5, [3.0] * 5 + [0.0] * 5),
            "The pairs have no spread within cells, and the cells do not all lie on one side (a: +3, b: +0): no test.",
        ),
        (
            trend(["s"] * 6, [0, 0, 0, 0.4, 0.4, 0.4], [0, 0, 0, 1, 1, 1]),
            "The runs have no spread within cells, which a test of their slope needs.",
        ),
    ],
)
def test_without_spread_and_without_a_test_the_answer_is_open_and_says_why(finding, why):
    effect = Effect("x", 1, "", finding=finding)
    assert effect.verdict == INCONCLUSIVE
    assert why in conclusion(effect)


@pytest.mark.parametrize("predicted", [1, 0])
def test_without_spread_the_deciding_test_is_the_sign_test(predicted):
    effect = Effect("x", predicted, "", finding=paired_effect(["a"] * 7, [0.1] * 7, margin=1.0), margin=1.0)
    assert effect.deciding_test == "sign test, as the pairs have no spread"


def no_difference(values, margin=0.01):
    finding = paired_effect(["x"] * len(values), values, null=(-margin, margin), margin=margin)
    return Effect("x", 0, "share", finding=finding, margin=margin, null=(-margin, margin))


def with_spread(count, deviation, mean):
    """Values with exactly this mean and standard deviation."""
    values = np.random.default_rng(0).normal(size=count)
    return mean + deviation * (values - values.mean()) / values.std(ddof=1)


@pytest.mark.parametrize("deviation", [0.01, 0.03, 0.05])
def test_so_many_units_as_are_said_to_show_no_difference_do_so_four_times_in_five(deviation):
    open_ = no_difference(with_spread(12, deviation, 0.008))
    (needed,) = re.findall(
        r"none beyond the margin \(0\.01 share\), if there is none, takes about (\d+) pairs",
        conclusion(open_),
    )
    drawn = np.random.default_rng(1).normal(0, deviation, (1000, int(needed)))
    shown = np.mean([no_difference(values).verdict == SUPPORTED_HERE for values in drawn])
    # three standard deviations of a share of 1,000 studies
    assert shown == pytest.approx(POWER, abs=0.04)


def test_the_size_of_a_study_that_is_to_show_no_difference_allows_for_the_other_equivalences():
    open_ = no_difference(with_spread(12, 0.05, 0.008))
    alone, one_of_two = (units_for_equivalence(open_.test, 0.01, 0.05 / tests) for tests in (1, 2))
    said = conclusion(corrected([open_, open_])[0])
    assert f"takes about {one_of_two:.0f} pairs" in said
    assert alone < one_of_two


def test_what_is_to_be_not_lower_by_a_margin_is_planned_for_a_true_value_of_zero():
    effect = effect_of([0.0] * 3, null=(-0.5, -0.5), margin=0.5, noise=2.0)
    assert "To show that it is not 0.5 on the other side, if it is zero, takes about" in conclusion(effect)


@pytest.mark.parametrize(
    ("verdicts", "combined"),
    [
        ([SUPPORTED, SUPPORTED], SUPPORTED),
        ([SUPPORTED, SUPPORTED_HERE], SUPPORTED_HERE),
        ([SUPPORTED, INCONCLUSIVE], INCONCLUSIVE),
        ([SUPPORTED, EQUIVALENT], EQUIVALENT),
        ([SUPPORTED_HERE, EQUIVALENT_HERE], EQUIVALENT_HERE),
        ([EQUIVALENT, MIXED], MIXED),
        ([SUPPORTED, VACUOUS], VACUOUS),
        ([SUPPORTED, MIXED, CONTRADICTED], CONTRADICTED),
        ([SUPPORTED, MIXED, CONTRADICTED_HERE], CONTRADICTED_HERE),
        # what is not measured can neither be supported nor be mixed
        ([SUPPORTED, NOT_MEASURED], INCONCLUSIVE),
        ([MIXED, NOT_MEASURED], INCONCLUSIVE),
        ([EQUIVALENT, NOT_MEASURED], INCONCLUSIVE),
        ([CONTRADICTED, NOT_MEASURED], CONTRADICTED),
        ([NOT_MEASURED, NOT_MEASURED], NOT_MEASURED),
    ],
)
def test_a_claim_needs_all_its_predictions_and_falls_with_one(verdicts, combined):
    assert combined_verdict(verdicts) == combined


def test_the_p_values_of_a_family_are_corrected_kind_by_kind():
    first, second = corrected([effect_of([1.0, -1.0]), effect_of([0.1] * 3, margin=0.5)])
    assert first.tests == second.tests == 2
    assert first.adjusted[2] == pytest.approx(2 * first.finding.reversal_p)
    assert np.isnan(first.adjusted[1])
    # the only equivalence of the family
    assert second.adjusted[1] == second.finding.these.equivalence_p


@pytest.mark.parametrize(
    ("p", "printed"),
    [
        (0.0498, "0.0498"),
        (0.04999996, "0.04999996"),
        (0.05, "0.050"),
        (0.0502, "0.050"),
        (0.0494, "0.049"),
        (0.2, "0.200"),
        (1.0, "1.000"),
        (0.0009, "< 0.001"),
        (np.nan, "–"),
    ],
)
def test_a_printed_p_value_lies_on_its_side_of_the_significance_level(p, printed):
    assert p_value(p) == printed


def test_cells_whose_rates_differ_by_little_stay_apart():
    rates = [0.1764, 0.17644, 0.4]
    runs = pd.DataFrame({"dataset": "d", "noise_kind": "symmetric", "noise_rate": rates})
    assert cell_names(runs).tolist() == ["17.64%", "17.644%", "40%"]


def test_methods_without_a_common_seed_are_said_to_have_none():
    runs = table()
    runs.loc[runs["method"] == "NCSAM", "seed"] += 100
    judgement = judged(runs, "G1")["G1"]
    assert judgement.conclusions[0].startswith("No seed is common to both sides, so that there is no pair: ")
    assert (judgement.effects[0].verdict, judgement.effects[0].samples) == (INCONCLUSIVE, 0)
