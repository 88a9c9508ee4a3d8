"""Planted effects are found, nulls are not, reversed effects are contradicted, at the nominal rates."""

import numpy as np
import pytest

from analysis.statistics import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    combined_verdict,
    paired_effect,
    rank_correlation_within,
    trend,
)

LEVELS = np.repeat([0.0, 0.2, 0.4, 0.6], 3)
STRATA = np.repeat([0, 1, 2, 3], 15)


def paired(effect, rng, n=9):
    return paired_effect("x", effect + rng.normal(size=n), predicted=1, unit="share")


def slope(effect, rng):
    return trend("x", LEVELS, effect * LEVELS + rng.normal(size=12), predicted=1, unit="per level")


def correlation(effect, rng):
    x = rng.normal(size=60)
    y = effect * x + rng.normal(size=60) + 5 * STRATA
    return rank_correlation_within("x", STRATA, x, y, predicted=1)


@pytest.mark.parametrize(("measure", "planted"), [(paired, 2.5), (slope, 10.0), (correlation, 1.5)])
def test_a_planted_effect_is_found_and_a_reversed_one_contradicted(measure, planted):
    rng = np.random.default_rng(0)
    found = [measure(planted, rng).verdict for _ in range(20)]
    assert found.count(SUPPORTED) >= 18
    reversed_ = [measure(-planted, rng).verdict for _ in range(20)]
    assert reversed_.count(CONTRADICTED) >= 18


@pytest.mark.parametrize("measure", [paired, slope, correlation])
def test_without_an_effect_a_verdict_is_given_in_at_most_one_of_twenty_cases(measure):
    rng = np.random.default_rng(1)
    decided = sum(measure(0.0, rng).verdict != INCONCLUSIVE for _ in range(150))
    # 150 draws at a rate of 5% give more than 15 once in 300 times
    assert decided <= 15


def test_three_pairs_are_never_enough_whatever_they_say():
    effect = paired_effect("x", [1.0, 1.1, 1.2], predicted=1, unit="share")
    assert effect.low > 0
    assert effect.p_value == pytest.approx(2 / 2**3)
    assert effect.verdict == INCONCLUSIVE


def test_the_sign_flip_test_is_exact():
    # of the 2^6 sign patterns just the two with all signs equal are as extreme
    effect = paired_effect("x", [1.0, 2.0, 1.5, 1.2, 0.7, 1.9], predicted=1, unit="share")
    assert effect.p_value == pytest.approx(2 / 64)
    assert effect.test == "exact sign-flip test"
    assert effect.verdict == SUPPORTED


def test_the_slope_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    values = rng.normal(size=12)
    assert trend("x", LEVELS, values, predicted=1, unit="").estimate == pytest.approx(
        np.polyfit(LEVELS, values, 1)[0]
    )


def test_a_difference_between_strata_is_no_correlation_within_them():
    rng = np.random.default_rng(0)
    x = STRATA * 10.0 + rng.normal(size=60)
    y = STRATA * 10.0 + rng.normal(size=60)
    assert rank_correlation_within("x", STRATA, x, y, predicted=1).verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    "effect",
    [
        lambda v: paired_effect("x", v, predicted=1, unit=""),
        lambda v: trend("x", np.arange(len(v)), v, predicted=1, unit=""),
        lambda v: rank_correlation_within("x", np.zeros(len(v)), np.arange(len(v)), v, predicted=1),
    ],
)
@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan, np.nan], [0.0] * 8])
def test_too_little_or_constant_data_is_inconclusive(effect, values):
    assert effect(values).verdict == INCONCLUSIVE


def test_pairs_with_a_missing_run_are_left_out():
    effect = paired_effect("x", [1.0, np.nan, 2.0, np.inf], predicted=1, unit="")
    assert (effect.samples, effect.estimate) == (2, 1.5)


@pytest.mark.parametrize(
    ("verdicts", "combined"),
    [
        ([SUPPORTED, SUPPORTED], SUPPORTED),
        ([SUPPORTED, INCONCLUSIVE], INCONCLUSIVE),
        ([SUPPORTED, CONTRADICTED], CONTRADICTED),
        ([], INCONCLUSIVE),
    ],
)
def test_a_claim_needs_all_its_predictions_and_falls_with_one(verdicts, combined):
    assert combined_verdict(verdicts) == combined
