"""Where the best value of a hyper-parameter lies: found only where one value is better than every one elsewhere."""

import json

import numpy as np
import pytest
import scipy.stats

from analysis.claims import NCSAM, Best
from analysis.claims import effect as verdicts
from analysis.claims.claim import Claim, judge
from analysis.claims.effect import Effect
from analysis.statistics import best_among
from tests.analysis.synthetic_study import METHODS, table, verdict

pytestmark = pytest.mark.usefixtures("quick_judgements")

VALUES = (0.2, 0.3, 0.4, 0.5, 0.6)
NEAR = Best("flip_ratio", "test_accuracy", NCSAM, 0.4, 0, margin=0.1)
BELOW = Best("flip_ratio", "test_accuracy", NCSAM, 0.4, -1)


def runs_of(means, seed=0, noise=0.01, seeds=8):
    """A study in which NCSAM's accuracy depends on its flip ratio alone."""
    runs = table(seed=seed, seeds=seeds)
    flips = runs["hyperparameters"].map(lambda text: json.loads(text).get("flip_ratio"))
    spread = noise * np.random.default_rng(seed).normal(size=len(runs))
    return runs.assign(test_accuracy=flips.map(dict(zip(VALUES, means, strict=True))) + spread)


def verdicts_of(prediction, means, studies, **options):
    """How often each verdict is given."""
    claim = Claim("X1", "s", "p", [prediction])
    found = [judge(runs_of(means, seed, **options), [claim])[0].verdict for seed in range(studies)]
    return {each: found.count(each) / studies for each in found}


@pytest.mark.parametrize(
    ("prediction", "means", "verdict_of_all"),
    [
        (NEAR, [0.5, 0.6, 0.8, 0.6, 0.5], verdicts.SUPPORTED_HERE),
        (NEAR, [0.5, 0.8, 0.5, 0.5, 0.5], verdicts.SUPPORTED_HERE),
        (NEAR, [0.8, 0.6, 0.5, 0.6, 0.6], verdicts.CONTRADICTED_HERE),
        # two peaks, whose middle is the noise rate
        (NEAR, [0.8, 0.5, 0.4, 0.5, 0.8], verdicts.CONTRADICTED_HERE),
        (BELOW, [0.8, 0.5, 0.5, 0.5, 0.5], verdicts.SUPPORTED_HERE),
        (BELOW, [0.5, 0.5, 0.8, 0.5, 0.5], verdicts.CONTRADICTED_HERE),
        (BELOW, [0.7, 0.5, 0.5, 0.5, 0.8], verdicts.CONTRADICTED_HERE),
    ],
)
def test_a_clear_best_value_is_found_where_it_is(prediction, means, verdict_of_all):
    assert verdicts_of(prediction, means, 3) == {verdict_of_all: 1}


INSIDE = np.array([False, True, True, True, False])


@pytest.mark.parametrize("cells", [1, 3])
@pytest.mark.parametrize(
    "means",
    [
        [0.0] * 5,
        # the value in the middle is the worst
        [0.0, -3.0, -3.0, -3.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, -9.0],
        # equally good inside and outside: neither is the better one
        [0.0, -9.0, 0.0, -9.0, -9.0],
        # the best value is at an edge
        [1.0, 0.0, 0.0, 0.0, 0.0],
    ],
)
def test_where_no_value_inside_is_the_best_none_is_found_in_more_than_one_of_twenty_studies(means, cells):
    rng, studies, seeds = np.random.default_rng(0), 200, 8
    labels = np.repeat(np.arange(cells), seeds)
    supported = 0
    for _ in range(studies):
        outcomes = np.array(means) + rng.normal(size=(len(labels), 5))
        effect = Effect("x", 1, "", finding=best_among(labels, outcomes, INSIDE))
        supported += effect.verdict == verdicts.SUPPORTED_HERE
    assert supported <= scipy.stats.binom.ppf(0.999, studies, 0.05)


def test_values_that_are_alike_to_less_than_the_margin_are_equivalent():
    assert verdicts_of(NEAR, [0.5] * 5, 3, noise=0.002) == {verdicts.EQUIVALENT_HERE: 1}


def test_a_flip_ratio_without_effect_supports_no_best_one():
    same = dict.fromkeys(METHODS, 0.2)
    found = [verdict(table(seed=seed, quality=same, noise=0.01, seeds=12), "A1") for seed in range(10)]
    assert verdicts.SUPPORTED_HERE not in found


def test_the_best_value_has_the_largest_p_value_of_its_comparisons_times_the_number_of_values_inside():
    outcomes = np.random.default_rng(0).normal([1.0, 0.8, 0.0, 0.2], 1, size=(9, 4))
    found = best_among(["a"] * 9, outcomes, np.array([True, True, False, False])).these
    one_sided = {
        (i, j): scipy.stats.ttest_rel(outcomes[:, i], outcomes[:, j], alternative="greater").pvalue
        for i in (0, 1)
        for j in (2, 3)
    }
    worst = {i: max(one_sided[i, j] for j in (2, 3)) for i in (0, 1)}
    best = min(worst, key=worst.get)
    other = max((2, 3), key=lambda j: one_sided[best, j])
    assert found.p_value == pytest.approx(min(1, 2 * 2 * worst[best]))
    assert found.estimate == pytest.approx((outcomes[:, best] - outcomes[:, other]).mean())


def test_the_two_sets_exchanged_are_the_same_test_of_the_other_sign():
    outcomes = np.random.default_rng(1).normal([0.0, 0.3, 1.5], 1, size=(9, 3))
    inside = np.array([True, True, False])
    one, other = (best_among(["a"] * 9, outcomes, sides).these for sides in (inside, ~inside))
    assert (one.p_value, one.estimate) == pytest.approx((other.p_value, -other.estimate))


@pytest.mark.parametrize(
    "prediction", [Best("flip_ratio", "test_accuracy", NCSAM, 0.4, 0, margin=0.3), BELOW]
)
def test_values_on_one_side_alone_are_no_measurement(prediction):
    runs = runs_of([0.5, 0.6, 0.8, 0.6, 0.5])
    fewer = runs[~runs["method"].isin(["flip 0.2", "flip 0.3"])]
    effect = prediction.effect(fewer)
    assert effect.verdict == verdicts.NOT_MEASURED
    assert "others not" in effect.needs


def test_a_seed_in_which_a_run_diverged_is_lost():
    runs = runs_of([0.5, 0.6, 0.8, 0.6, 0.5])
    one = (runs["method"] == "flip 0.2") & (runs["noise_rate"] == 0.4) & (runs["seed"] == 3)
    effect = NEAR.effect(runs.assign(test_accuracy=runs["test_accuracy"].mask(one)))
    assert (effect.lost, effect.samples) == (1, 7)
