"""Labels that are redrawn at each step, compared with fixed ones, with their mean, and with simulated ones."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis.claims import SAM, SGD, Association, Difference, Level, Trend
from analysis.claims.effect import (
    CONTRADICTED_HERE,
    EQUIVALENT_HERE,
    INCONCLUSIVE,
    SUPPORTED_HERE,
)
from analysis.plan.run_config import REDRAWN
from tests.analysis.synthetic_study import judged, table, verdict

UNIFORM = {"draw": "uniform", "labels": "uniform"}

pytestmark = pytest.mark.usefixtures("quick_judgements")


def with_jacobian(runs, decades, seed=0):
    """The runs with a trace of J^T J of 10^4, and as many decades more or less as `decades` says of a label."""
    noise = 0.02 * np.random.default_rng(seed).normal(size=len(runs))
    return runs.assign(
        jacobian_trace_observed=10.0 ** (4 + runs["method"].map(decades).fillna(0) + noise),
        jacobian_trace_observed_converged=True,
        sharpness_elementwise_clean=10.0 ** (runs["method"].map(decades).fillna(0) + noise),
        sharpness_elementwise_clean_converged=True,
    )


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-1.0, SUPPORTED_HERE), (1.0, CONTRADICTED_HERE)],
)
def test_redrawn_labels_are_compared_with_fixed_ones_at_the_same_rate(decades, expected):
    runs = table()
    fixed = with_jacobian(runs, {}, seed=0)
    redrawn = with_jacobian(runs, {"SGD": decades}, seed=1).assign(
        noise_kind="symmetric, redrawn each step", test_accuracy=runs["test_accuracy"] - decades / 10
    )
    assert verdict(pd.concat([fixed, redrawn]), "F1") == expected


def redrawn_beside_their_mean(decades):
    runs = table()
    plain = runs[runs["method"] == "SGD"]
    redrawn = with_jacobian(plain[plain["noise_rate"] > 0], {"SGD": decades}, seed=1)
    smoothed = [
        with_jacobian(plain[plain["noise_rate"] == 0], {}, seed=2).assign(
            method=f"mean of {rate:.0%}", label_smoothing=round(rate * 10 / 9, 10)
        )
        for rate in (0.2, 0.4, 0.6)
    ]
    return pd.concat(
        [redrawn.assign(noise_kind="symmetric, redrawn each step"), *smoothed], ignore_index=True
    )


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-1.0, SUPPORTED_HERE), (0.0, EQUIVALENT_HERE), (1.0, CONTRADICTED_HERE)],
)
def test_redrawn_labels_are_compared_with_true_labels_smoothed_to_their_mean(decades, expected):
    assert verdict(redrawn_beside_their_mean(decades), "F3") == expected


def test_the_smoothed_runs_of_a_seed_are_one_unit_at_all_smoothings():
    """All of them have the noise rate 0, and with it the same initial weights and order of samples."""
    runs = redrawn_beside_their_mean(-1.0)
    effect = judged(runs, "F3")["F3"].effects[0]
    assert (effect.samples, effect.counted, effect.finding.places) == (6, "seeds", 3)
    decades = np.log10(runs["jacobian_trace_observed"])
    rates = runs["noise_rate"].where(runs["noise_rate"] > 0, (runs["label_smoothing"] * 0.9).round(6))
    means = decades.groupby([runs["noise_rate"] > 0, runs["seed"], rates]).mean().groupby(level=[0, 1]).mean()
    expected = scipy.stats.ttest_1samp(means[True] - means[False], 0).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx(tuple(expected))


def fixed_and_redrawn():
    return pd.concat(
        [
            table(seed=seed).assign(noise_kind=f"symmetric{suffix}")
            for seed, suffix in enumerate(("", REDRAWN))
        ],
        ignore_index=True,
    )


@pytest.mark.parametrize(
    "prediction",
    [
        Level("clean_noise_cosine", SGD, -1),
        Difference("test_accuracy", SAM, SGD, 1),
        Trend("sharpness_clean", SGD, 1),
    ],
)
def test_labels_that_stay_and_labels_that_are_redrawn_share_the_draws_of_a_seed(prediction):
    finding = prediction.effect(fixed_and_redrawn()).finding
    rates = 4 if isinstance(prediction, Trend) else 3
    assert (finding.these.units, finding.these.counted, finding.data_sets) == (6 * rates, "seeds", 1)


def test_a_bound_on_labels_that_stay_and_that_are_redrawn_holds_on_one_draw():
    effect = judged(fixed_and_redrawn(), "T1")["T1"].effects[0]
    assert effect.samples == 6 * 4


def test_associations_over_both_are_of_one_data_set():
    effect = Association("sharpness_observed", "test_accuracy", -1).effect(fixed_and_redrawn())
    assert (effect.finding.places, effect.finding.data_sets) == (6, 1)


@pytest.mark.parametrize(
    "prediction",
    [
        Difference("test_accuracy", SAM, SGD, 1),
        Difference("test_accuracy", SAM, SGD, 1, clean=True),
        Trend("sharpness_clean", SGD, 1),
        Association("sharpness_observed", "test_accuracy", -1),
    ],
)
def test_several_kinds_of_noise_on_one_data_set_are_one_unit_of_the_population(prediction):
    kinds = [table(seed=seed).assign(noise_kind=kind) for seed, kind in enumerate(("symmetric", "pair"))]
    assert prediction.effect(pd.concat(kinds, ignore_index=True)).finding.data_sets == 1


def test_a_smoothed_run_that_did_not_converge_is_counted():
    runs = redrawn_beside_their_mean(-1.0)
    one = runs.index[runs["label_smoothing"] > 0][0]
    runs.loc[one, "jacobian_trace_observed_converged"] = False
    effect = judged(runs, "F3")["F3"].effects[0]
    assert effect.coverage.not_converged == 1
    assert effect.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-1.0, SUPPORTED_HERE), (0.0, EQUIVALENT_HERE), (1.0, CONTRADICTED_HERE)],
)
def test_simulated_labels_are_compared_with_no_compensation(decades, expected):
    runs = table()
    flips = json.dumps(json.loads(runs[runs["method"] == "NCSAM"]["hyperparameters"].iloc[0]) | UNIFORM)
    random = runs[runs["method"] == "NCSAM"].assign(method="random flips", hyperparameters=flips)
    noisy = pd.concat([runs, random])
    planted = with_jacobian(noisy, {"NCSAM": decades, "random flips": decades})
    assert verdict(planted, "F2") == expected
    # an uncertainty that moves with the Jacobian takes nothing of what is relative to it
    unsure = 10.0 ** (0.5 * planted["method"].map({"NCSAM": decades, "random flips": decades}).fillna(0) - 1)
    planted = planted.assign(
        uncertainty_observed=unsure,
        gauss_newton_trace_observed=unsure * planted["jacobian_trace_observed"],
    )
    assert verdict(planted, "F5") == expected
