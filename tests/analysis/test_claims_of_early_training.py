"""Claims E7 to E10 on studies with a planted truth: early training, spectra of the weights, equal uncertainty."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.claims import CLAIMS, judge
from analysis.claims.effect import CONTRADICTED_HERE, EQUIVALENT_HERE, INCONCLUSIVE, SUPPORTED_HERE
from analysis.claims.quantities import quantity
from tests.analysis.synthetic_study import table

pytestmark = pytest.mark.usefixtures("quick_judgements")

EARLY = {"early_memorized": 0.05, "memorized_at_fit": 0.1, "weight_tail_index": 3.0}
FAMILIES = 10


def judged(claim, runs):
    (judgement,) = judge(runs, [replace(CLAIMS[claim], controls=())])
    return [effect.verdict for effect in judgement.effects]


@pytest.mark.parametrize(
    ("claim", "planted", "expected"),
    [
        ("E8", {"early_memorized": -0.03, "memorized_at_fit": -0.05}, [SUPPORTED_HERE] * 2),
        # SAM only learns more slowly
        ("E8", {"early_memorized": -0.03}, [SUPPORTED_HERE, EQUIVALENT_HERE]),
        ("E8", {}, [EQUIVALENT_HERE] * 2),
        ("E8", {"early_memorized": 0.03, "memorized_at_fit": 0.05}, [CONTRADICTED_HERE] * 2),
    ],
)
def test_noise_that_sam_learns_less_of_early_is_found(claim, planted, expected):
    runs = table(seeds=5)
    spread = np.random.default_rng(0).normal(size=(len(runs), len(EARLY)))
    of_sam = (runs["method"] == "SAM").astype(float)
    columns = {
        name: value + planted.get(name, 0.0) * of_sam + 0.001 * spread[:, place]
        for place, (name, value) in enumerate(EARLY.items())
    }
    assert judged(claim, runs.assign(**columns)) == expected


@pytest.mark.parametrize(
    ("lost", "expected"), [(0.2, SUPPORTED_HERE), (0.0, INCONCLUSIVE), (-0.2, CONTRADICTED_HERE)]
)
def test_recovered_labels_that_only_fluctuate_are_not_lost(lost, expected):
    runs = table(seeds=5)
    # shares of 500 labels over 40 epochs, which fall or rise after the first tenth
    levels = 0.7 - lost * (np.arange(40) >= 4)
    epochs = np.random.default_rng(0).binomial(500, levels, size=(len(runs), 40)) / 500
    columns = {
        "recovered": epochs[:, -1],
        "best_recovered": epochs.max(1),
        "early_recovered": epochs[:, :4].mean(1),
    }
    assert judged("E2", runs.assign(**columns))[0] == expected


@pytest.mark.parametrize(
    ("slope", "expected"), [(2.0, SUPPORTED_HERE), (0.0, EQUIVALENT_HERE), (-2.0, CONTRADICTED_HERE)]
)
def test_a_tail_index_that_grows_with_the_noise_is_found(slope, expected):
    runs = table(seeds=5)
    spread = np.random.default_rng(0).normal(size=len(runs))
    planted = 3 + slope * runs["noise_rate"] + 0.01 * spread
    assert judged("E9", runs.assign(weight_tail_index=planted)) == [expected]


def families(trace_of, protects, seed=0):
    """Runs of ten families of methods at two rates.

    Each family has an uncertainty and, but for its own share, a trace as `trace_of` gives it in decades. What is
    memorized grows with the quantity `protects`.
    """
    rng = np.random.default_rng(seed)
    runs = table(seeds=3)
    one = runs[(runs["method"] == "SGD") & runs["noise_rate"].isin((0.2, 0.4))]
    found = []
    for family in range(FAMILIES):
        uncertain, own = rng.normal(size=2)
        values = {"trace": trace_of(uncertain) + own, "uncertainty": uncertain}
        harm = values["trace"] if protects == "trace" else -uncertain if protects else rng.normal()
        found.append(
            one.assign(
                method=f"method {family}",
                hyperparameters=json.dumps({"schedule": f"schedule {family}"}),
                jacobian_trace_observed=10 ** (3 + 0.3 * values["trace"]),
                early_trace=10 ** (2 + 0.3 * values["trace"]),
                uncertainty_observed=10 ** (-1 + 0.2 * uncertain),
                memorized=0.3 + 0.05 * harm,
                test_accuracy=0.8 - 0.05 * harm,
                best_test_accuracy=0.95,
            )
        )
    runs = pd.concat(found, ignore_index=True)
    small = 1e-3 * rng.normal(size=(2, len(runs)))
    return runs.assign(memorized=runs["memorized"] + small[0], test_accuracy=runs["test_accuracy"] + small[1])


def test_an_early_trace_that_predicts_what_is_lost_late_is_found():
    assert judged("E7", families(lambda _: 0.0, protects="trace")) == [SUPPORTED_HERE] * 2


def test_an_early_trace_that_predicts_nothing_is_not_found():
    assert judged("E7", families(lambda _: 0.0, protects=None)) == [INCONCLUSIVE] * 2


def test_flatness_that_protects_at_equal_uncertainty_is_found():
    assert judged("E10", families(lambda uncertain: -uncertain, protects="trace")) == [SUPPORTED_HERE] * 2


def test_flatness_that_only_goes_with_the_uncertainty_that_protects_is_not_found():
    assert judged("E10", families(lambda uncertain: -uncertain, protects="uncertainty")) == [INCONCLUSIVE] * 2


def test_a_new_index_is_asked_for_only_where_the_index_is_old():
    runs = table().assign(memorized_at_fit=np.nan, early_fitted=0.5)
    what = quantity("memorized_at_fit")
    assert what.lacks(runs) == "runs that fit seven eighths of the right labels after their first epoch"
    assert "index by this version" in what.lacks(runs.drop(columns="memorized_at_fit"))
