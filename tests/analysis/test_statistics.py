"""Planted effects are found, nulls are not, reversed effects are contradicted, at the nominal rates."""

import numpy as np
import pytest

from analysis.statistics import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    combined_verdict,
    paired_effect,
    rank_correlation_between,
    trend,
)

LEVELS = np.repeat([0.0, 0.2, 0.4, 0.6], 3)
STRATA = np.tile(np.repeat([0, 1, 2], 3), 7)
METHODS = np.repeat(list("abcdefg"), 9)


def paired(effect, rng, n=9):
    return paired_effect("x", effect + rng.normal(size=n), predicted=1, unit="share")


def slope(effect, rng):
    return trend("x", LEVELS, effect * LEVELS + rng.normal(size=12), predicted=1, unit="per level")


def correlation(effect, rng):
    """Seven methods, three rates, three seeds; methods differ in x and y, and seeds hardly."""
    x = np.repeat(rng.normal(size=7), 9) + 0.1 * rng.normal(size=63)
    y = effect * x + np.repeat(rng.normal(size=7), 9) + 0.1 * rng.normal(size=63) + 5 * STRATA
    return rank_correlation_between("x", STRATA, METHODS, x, y, predicted=1)


@pytest.mark.parametrize(("measure", "planted"), [(paired, 2.5), (slope, 10.0), (correlation, 20.0)])
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
    estimates = []
    for _ in range(50):
        x = STRATA * 10.0 + rng.normal(size=63)
        y = STRATA * 10.0 + rng.normal(size=63)
        estimates.append(rank_correlation_between("x", STRATA, METHODS, x, y, predicted=1).estimate)
    # the mean of 3 rank correlations of 7 values has a standard deviation of 1 / sqrt(3 * 6); then of 50 draws
    assert abs(np.mean(estimates)) < 4 / np.sqrt(18 * 50)


def test_seeds_are_no_new_evidence_of_how_methods_go_together():
    # four methods whose ranks agree: 2 of 24 orders are as extreme, however many seeds each has
    strata, methods = np.zeros(400), np.repeat(list("abcd"), 100)
    values = np.repeat([1.0, 2.0, 3.0, 4.0], 100)
    effect = rank_correlation_between("x", strata, methods, values, values, predicted=1)
    assert (effect.estimate, effect.samples) == (1, 4)
    assert effect.p_value == pytest.approx(2 / 24)
    assert effect.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    "effect",
    [
        lambda v: paired_effect("x", v, predicted=1, unit=""),
        lambda v: trend("x", np.arange(len(v)), v, predicted=1, unit=""),
        lambda v: rank_correlation_between(
            "x", np.zeros(len(v)), np.arange(len(v)), np.arange(len(v)), v, predicted=1
        ),
    ],
)
@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan, np.nan], [0.0] * 8])
def test_too_little_or_constant_data_is_inconclusive(effect, values):
    assert effect(values).verdict == INCONCLUSIVE


def test_pairs_lost_to_divergence_are_counted_and_forbid_a_verdict():
    kept = [1.0, 2.0, 1.5, 1.2, 0.7, 1.9, 1.1]
    whole = paired_effect("x", kept, predicted=1, unit="")
    effect = paired_effect("x", [*kept, np.nan, np.inf], predicted=1, unit="")
    assert (effect.samples, effect.lost, effect.estimate) == (7, 2, whole.estimate)
    assert whole.verdict == SUPPORTED
    assert effect.verdict == INCONCLUSIVE


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
