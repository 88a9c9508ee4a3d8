"""Planted effects are found, nulls are not, reversed effects are contradicted, at the nominal rates."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from analysis.statistics import (
    CONTRADICTED,
    EQUIVALENT,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    SUPPORTED,
    adjusted,
    combined_verdict,
    detectable_effect,
    not_measured,
    paired_effect,
    rank_association,
    samples_needed,
    trend,
)
from analysis.statistics.family import holm

pytestmark = pytest.mark.usefixtures("quick_judgements")

LEVELS = np.repeat([0.0, 0.2, 0.4, 0.6], 3)
STRATA = np.tile(np.repeat([0, 1, 2], 3), 6)
METHODS = np.repeat(list("abcdef"), 9)


def paired(effect, rng, n=9, **options):
    return paired_effect("x", effect + rng.normal(size=n), predicted=1, unit="share", **options)


def slope(effect, rng):
    return trend("x", LEVELS, effect * LEVELS + rng.normal(size=12), predicted=1, unit="per level")


def association(effect, rng, given=False):
    """Six methods, three rates, three seeds; methods differ in x and y, and seeds hardly."""
    common = np.repeat(rng.normal(size=6), 9)
    x = np.repeat(rng.normal(size=6), 9) + 0.1 * rng.normal(size=54) + (common if given else 0)
    y = effect * x + np.repeat(rng.normal(size=6), 9) + 0.1 * rng.normal(size=54) + 5 * STRATA
    y = y + (common if given else 0)
    return rank_association("x", STRATA, METHODS, x, y, given=common if given else None, predicted=1)


def verdicts(measure, effect, draws, seed, **options):
    rng = np.random.default_rng(seed)
    return [measure(effect, rng, **options).verdict for _ in range(draws)]


def at_most(draws, rate=0.05):
    """A count that a rate of 5% exceeds once in a thousand times."""
    return int(scipy.stats.binom.ppf(0.999, draws, rate))


@pytest.mark.parametrize(("measure", "planted"), [(paired, 2.5), (slope, 10.0), (association, 20.0)])
def test_a_planted_effect_is_found_and_a_reversed_one_contradicted(measure, planted):
    assert verdicts(measure, planted, 20, seed=0).count(SUPPORTED) >= 18
    assert verdicts(measure, -planted, 20, seed=0).count(CONTRADICTED) >= 18


@pytest.mark.parametrize(
    ("measure", "options", "draws"),
    [(paired, {}, 300), (slope, {}, 100), (association, {}, 100), (association, {"given": True}, 60)],
)
def test_without_an_effect_a_sign_is_found_in_at_most_one_of_twenty_cases(measure, options, draws):
    found = verdicts(measure, 0.0, draws, seed=1, **options)
    assert draws - found.count(INCONCLUSIVE) <= at_most(draws)


def test_no_difference_is_found_where_the_margin_is_wide_and_never_at_its_edge_more_often_than_it_may():
    assert verdicts(paired, 0.0, 40, seed=2, margin=1.5).count(EQUIVALENT) >= 36
    assert verdicts(paired, 1.5, 200, seed=3, margin=1.5).count(EQUIVALENT) <= at_most(200)


def test_a_pooled_effect_that_reverses_over_noise_rates_is_mixed_and_one_that_does_not_is_not():
    rng = np.random.default_rng(4)
    strata = np.repeat(["20%", "40%", "60%"], 4)

    def found(*means):
        values = np.repeat(means, 4) + rng.normal(size=12)
        return paired_effect("x", values, predicted=1, unit="", strata=strata)

    assert [found(-6.0, 0.0, 6.0).verdict for _ in range(10)].count(MIXED) >= 9
    assert MIXED not in [found(2.0, 4.0, 6.0).verdict for _ in range(20)]
    # both the test of the parts and their intervals have to say so: far below one in twenty
    assert [found(0.0, 0.0, 0.0).verdict for _ in range(60)].count(MIXED) <= at_most(60, 0.01)
    effect = found(-6.0, 0.0, 6.0)
    assert [part.name for part in effect.parts] == ["20%", "40%", "60%"]
    assert [part.samples for part in effect.parts] == [4, 4, 4]


def test_a_reversal_too_small_to_matter_is_equivalence():
    values = np.tile([-0.001, -0.002], 4).tolist() + np.tile([0.001, 0.002], 4).tolist()
    strata = np.repeat(["20%", "40%"], 8)
    effect = paired_effect("x", values, predicted=1, unit="share", margin=0.01, strata=strata)
    assert effect.reversal_p < 0.05
    assert effect.verdict == EQUIVALENT


def test_three_pairs_are_never_enough_whatever_they_say():
    effect = paired_effect("x", [1.0, 1.1, 1.2], predicted=1, unit="share")
    assert effect.low > 0
    assert effect.p_value == effect.smallest_p == pytest.approx(2 / 2**3)
    assert effect.verdict == INCONCLUSIVE


def test_the_sign_flip_test_is_that_of_all_sign_patterns():
    values = np.random.default_rng(5).normal(0.5, 1, size=8)
    means = [abs(np.mean(values * signs)) for signs in itertools.product([-1, 1], repeat=8)]
    effect = paired_effect("x", values, predicted=1, unit="share")
    assert effect.p_value == pytest.approx(np.mean(np.array(means) >= abs(values.mean()) - 1e-12))
    assert effect.test == "exact sign-flip test"


def test_equivalence_is_that_of_two_one_sided_t_tests():
    values = np.random.default_rng(6).normal(size=10)
    one_sided = [
        scipy.stats.ttest_1samp(values, -0.8, alternative="greater").pvalue,
        scipy.stats.ttest_1samp(values, 0.8, alternative="less").pvalue,
    ]
    effect = paired_effect("x", values, predicted=0, unit="", margin=0.8)
    assert effect.equivalence_p == pytest.approx(max(one_sided))


def test_identical_values_within_the_margin_are_equivalent_once_there_are_five():
    # chance puts each of n values on one side of the median with probability 1/2
    assert paired_effect("x", [0.0] * 5, predicted=0, unit="", margin=0.1).verdict == SUPPORTED
    assert paired_effect("x", [0.0] * 4, predicted=0, unit="", margin=0.1).verdict == INCONCLUSIVE


def test_a_predicted_absence_of_a_difference_is_supported_by_equivalence_and_contradicted_by_a_difference():
    values = np.array([1.0, 2.0, 1.5, 1.2, 0.7, 1.9])
    assert paired_effect("x", values - 1.4, predicted=0, unit="", margin=1.0).verdict == SUPPORTED
    assert paired_effect("x", values, predicted=0, unit="", margin=0.5).verdict == CONTRADICTED
    # a difference, and perhaps one that does not matter
    assert paired_effect("x", values, predicted=1, unit="", margin=1.0).verdict == SUPPORTED
    assert paired_effect("x", values, predicted=0, unit="", margin=1.0).verdict == INCONCLUSIVE
    assert paired_effect("x", values - 1.4, predicted=0, unit="", margin=0.1).verdict == INCONCLUSIVE


def test_a_difference_within_the_margin_contradicts_its_absence_in_at_most_one_of_twenty_cases():
    rng = np.random.default_rng(15)
    found = [
        paired_effect("x", true + rng.normal(size=9), predicted=0, unit="", margin=1.0).verdict
        for true in (0.6, 1.0)
        for _ in range(100)
    ]
    assert found.count(CONTRADICTED) <= at_most(200)


def test_what_holds_on_average_but_not_in_every_run_is_mixed():
    effect = paired_effect("x", [1.0, 2.0, 1.5, 1.2, 0.7, 1.9], predicted=1, unit="")
    assert replace(effect, violations=1).verdict == MIXED


def test_the_slope_is_that_of_least_squares_with_its_standard_error():
    values = np.random.default_rng(0).normal(size=12)
    effect = trend("x", LEVELS, values, predicted=1, unit="", margin=3.0)
    line = scipy.stats.linregress(LEVELS, values)
    assert effect.estimate == pytest.approx(line.slope)
    assert effect.spread / np.sqrt(12) == pytest.approx(line.stderr)
    assert effect.equivalence_p == pytest.approx(
        max(
            scipy.stats.t.sf((3.0 + line.slope) / line.stderr, 10),
            scipy.stats.t.cdf((line.slope - 3.0) / line.stderr, 10),
        )
    )


def test_95_percent_intervals_hold_the_slope_in_95_percent_of_draws():
    rng = np.random.default_rng(16)
    held = [effect.low <= 3.0 <= effect.high for effect in (slope(3.0, rng) for _ in range(400))]
    # 400 draws see 95% as 92 to 98%
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize(
    ("levels", "blocks", "smallest"),
    # the orders of the levels: 4! / (2! 2!); the rankings in two blocks of three: (3!)^2
    [([0, 0, 1, 1], None, 2 / 6), ([0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1], 2 / 36)],
)
def test_a_trend_of_few_runs_says_how_small_its_p_value_can_be(levels, blocks, smallest):
    values = np.array(levels) + 1e-3 * np.arange(len(levels))
    effect = trend("x", levels, values, blocks=blocks, predicted=1, unit="")
    assert effect.p_value == pytest.approx(smallest, rel=0.05)
    assert effect.smallest_p == pytest.approx(smallest)
    assert detectable_effect(effect) == np.inf


def test_a_difference_between_data_sets_is_no_trend_within_them():
    levels = np.tile([0.2, 0.4, 0.6], 4)
    data_set = np.repeat(["a", "b"], 6)
    values = levels + np.where(data_set == "b", 100.0, 0.0) + 0.01 * np.random.default_rng(0).normal(size=12)
    assert trend("x", levels, values, strata=data_set, predicted=1, unit="").estimate == pytest.approx(
        1, abs=0.1
    )


def test_jonckheeres_test_counts_concordant_pairs_in_all_orders():
    levels, values = [0, 0, 1, 1, 2, 2], [0.3, 1.0, 0.7, 2.0, 1.4, 1.9]

    def concordance(order):
        pairs = itertools.combinations(range(6), 2)
        return sum(np.sign((order[i] - order[j]) * (values[i] - values[j])) for i, j in pairs)

    all_orders = np.array([concordance(order) for order in itertools.permutations(levels)])
    expected = 2 * np.mean(all_orders >= concordance(levels))
    assert trend("x", levels, values, predicted=1, unit="").p_value == pytest.approx(expected)


def test_jonckheeres_test_permutes_within_strata_of_any_size():
    levels, strata = np.array([0, 0, 1, 1, 0, 1, 1, 1]), np.array(list("aaaabbbb"))
    values = np.array([0.3, 1.0, 0.7, 2.0, 4.0, 4.5, 4.4, 3.9])
    for kept in (np.arange(8), np.arange(7)):
        x, y, group = levels[kept], values[kept], strata[kept]

        def concordance(order, y=y, group=group):
            pairs = [(i, j) for i, j in itertools.combinations(range(len(y)), 2) if group[i] == group[j]]
            return sum(np.sign((order[i] - order[j]) * (y[i] - y[j])) for i, j in pairs)

        orders = itertools.product(*(itertools.permutations(x[group == name]) for name in "ab"))
        all_orders = np.array([concordance([*first, *second]) for first, second in orders])
        sides = [np.mean(all_orders >= concordance(x)), np.mean(all_orders <= concordance(x))]
        found = trend("x", x, y, strata=group, predicted=1, unit="").p_value
        # of 4,999 permutations
        assert found == pytest.approx(min(1, 2 * min(sides)), abs=0.04)


def test_paired_runs_are_tested_by_page():
    rng = np.random.default_rng(8)
    matrix = rng.normal(size=(4, 3)) + np.arange(3)
    effect = trend(
        "x",
        np.tile([0.1, 0.2, 0.4], 4),
        matrix.ravel(),
        blocks=np.repeat(range(4), 3),
        predicted=1,
        unit="",
    )
    assert effect.test == "Page's test"
    assert effect.p_value == pytest.approx(2 * scipy.stats.page_trend_test(matrix).pvalue)


def test_blocks_with_a_hole_fall_back_to_jonckheere():
    effect = trend(
        "x",
        np.tile([1, 2, 3], 3)[:-1],
        np.arange(8.0),
        blocks=np.repeat(range(3), 3)[:-1],
        predicted=1,
        unit="",
    )
    assert "Jonckheere" in effect.test


def test_tau_is_kendalls_and_the_partial_one_follows_from_the_three():
    rng = np.random.default_rng(9)
    x, y, z = rng.normal(size=(3, 8))
    one, names = np.zeros(8), list("abcdefgh")
    tau = {
        pair: scipy.stats.kendalltau(*values).statistic
        for pair, values in {"xy": (x, y), "xz": (x, z), "yz": (y, z)}.items()
    }
    assert rank_association("x", one, names, x, y, predicted=1).estimate == pytest.approx(tau["xy"])
    partial = (tau["xy"] - tau["xz"] * tau["yz"]) / np.sqrt((1 - tau["xz"] ** 2) * (1 - tau["yz"] ** 2))
    found = rank_association("x", one, names, x, y, given=z, predicted=1)
    assert found.estimate == pytest.approx(partial)


def test_a_correlation_that_a_third_quantity_explains_is_gone_once_it_is_given():
    rng = np.random.default_rng(10)
    z = np.arange(12.0)
    x, y = z + rng.normal(size=12), z + rng.normal(size=12)
    one, names = np.zeros(12), [f"m{i:02}" for i in range(12)]
    assert rank_association("x", one, names, x, y, predicted=1).verdict == SUPPORTED
    assert rank_association("x", one, names, x, y, given=z, predicted=1).verdict == INCONCLUSIVE


def test_a_difference_between_strata_is_no_correlation_within_them():
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(30):
        x = STRATA * 10.0 + rng.normal(size=54)
        y = STRATA * 10.0 + rng.normal(size=54)
        estimates.append(rank_association("x", STRATA, METHODS, x, y, predicted=1).estimate)
    # tau of 6 values has the variance 2 (2 n + 5) / (9 n (n - 1)) = 0.126; the mean of 3, then of 30 draws
    assert abs(np.mean(estimates)) < 4 * np.sqrt(0.126 / 3 / 30)


def test_seeds_are_no_new_evidence_of_how_methods_go_together():
    # four methods whose ranks agree: 2 of 24 orders are as extreme, however many seeds each has
    strata, methods = np.zeros(400), np.repeat(list("abcd"), 100)
    values = np.repeat([1.0, 2.0, 3.0, 4.0], 100)
    effect = rank_association("x", strata, methods, values, values, predicted=1)
    assert (effect.estimate, effect.samples) == (pytest.approx(1), 4)
    assert effect.p_value == effect.smallest_p == pytest.approx(2 / 24)
    assert effect.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    "effect",
    [
        lambda v: paired_effect("x", v, predicted=1, unit=""),
        lambda v: trend("x", np.arange(len(v)), v, predicted=1, unit=""),
        lambda v: rank_association(
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
    assert whole.verdict == effect.verdict_of_the_rest == SUPPORTED
    assert effect.verdict == INCONCLUSIVE


def test_a_family_of_true_nulls_gives_a_wrong_verdict_in_at_most_one_of_twenty_cases():
    rng = np.random.default_rng(11)
    draws = 40
    wrong = 0
    for _ in range(draws):
        family = adjusted([paired(0.0, rng) for _ in range(4)])
        wrong += any(effect.verdict != INCONCLUSIVE for effect in family)
    assert wrong <= at_most(draws)


def test_holm_multiplies_by_the_hypotheses_left_and_skips_what_could_not_be_tested():
    effects = [
        paired_effect("x", v, predicted=1, unit="") for v in ([1.0] * 7 + [1.1], [1.0, 2, 3, 4, 5, 6], [1.0])
    ]
    first, second, third = adjusted(effects)
    assert first.adjusted[0] == pytest.approx(2 * 2 / 2**8)
    assert second.adjusted[0] == pytest.approx(2 / 2**6)
    assert np.isnan(third.adjusted[0])
    assert [effect.tests for effect in (first, second, third)] == [2, 2, 2]


def test_holms_correction_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 9):
        p_values = rng.uniform(size=count) ** 3
        expected = multipletests(p_values, method="holm")[1] if count else p_values
        np.testing.assert_allclose(holm(p_values), expected)


@pytest.mark.parametrize(("pairs", "tests"), [(9, 1), (9, 11), (8, 6), (14, 11)])
def test_an_effect_of_the_detectable_size_is_found_four_times_in_five(pairs, tests):
    effect = replace(paired(0.0, np.random.default_rng(12), n=pairs), spread=1.0, tests=tests)
    size = detectable_effect(effect)
    assert samples_needed(effect, size) == pairs
    rng = np.random.default_rng(13)
    found = [paired(size, rng, n=pairs).p_value * tests < 0.05 for _ in range(300)]
    # 300 draws at 80% have a standard deviation of 0.023; above ten pairs a t test stands for the sign-flip test
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_five_pairs_can_find_nothing_and_the_answer_says_how_many_can():
    effect = paired_effect("x", [1.0, 1.01, 1.02, 0.99, 0.98], predicted=1, unit="")
    assert detectable_effect(effect) == np.inf
    assert samples_needed(effect, 1.0) == 6
    assert samples_needed(replace(effect, tests=6), 1.0) == 8


@pytest.mark.parametrize(
    ("verdicts", "combined"),
    [
        ([SUPPORTED, SUPPORTED], SUPPORTED),
        ([SUPPORTED, INCONCLUSIVE], INCONCLUSIVE),
        ([SUPPORTED, NOT_MEASURED], INCONCLUSIVE),
        ([SUPPORTED, EQUIVALENT], EQUIVALENT),
        ([EQUIVALENT, MIXED], MIXED),
        ([SUPPORTED, MIXED, CONTRADICTED], CONTRADICTED),
        ([NOT_MEASURED, NOT_MEASURED], NOT_MEASURED),
    ],
)
def test_a_claim_needs_all_its_predictions_and_falls_with_one(verdicts, combined):
    assert combined_verdict(verdicts) == combined


def test_what_is_not_measured_says_what_it_needs():
    effect = not_measured("x", 1, "share", "runs of SAM")
    assert (effect.verdict, effect.needs) == (NOT_MEASURED, "runs of SAM")
