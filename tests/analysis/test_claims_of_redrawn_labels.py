"""Labels that are redrawn at each step, compared with fixed ones, with their mean, and with simulated ones."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.claims.effect import (
    CONTRADICTED_HERE,
    EQUIVALENT_HERE,
    INCONCLUSIVE,
    SUPPORTED_HERE,
)
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
