"""Claim E14 on studies with a planted truth: is it flatness that protects, or being unsure?"""

import numpy as np
import pandas as pd
import pytest

from analysis.claims import CLAIMS, judge
from analysis.claims.effect import CONTRADICTED_HERE, EQUIVALENT_HERE, SUPPORTED_HERE
from analysis.claims.variants import EQUALLY_STEEP, EQUALLY_UNSURE, select
from tests.analysis.synthetic_study import table

pytestmark = pytest.mark.usefixtures("quick_judgements")

# the uncertainty of the predictions and tr J^T J that each training ends with
METHODS = {
    "SGD": (0.2, 20_000.0),
    "penalty on tr JJ": (0.6, 1_000.0),
    "confidence 0.3": (0.4, 10_000.0),
    "confidence 0.6": (0.61, 5_000.0),
    "confidence 2": (0.85, 1_100.0),
}


def study(memorized):
    """Runs of these methods, with the wrong labels that `memorized(uncertainty, trace)` says."""
    sgd = table(seeds=5).query("method == 'SGD' and noise_rate > 0")
    rng = np.random.default_rng(0)
    runs = []
    for method, (uncertainty, trace) in METHODS.items():
        share = memorized(uncertainty, trace) + 0.01 * rng.normal(size=len(sgd))
        runs.append(
            sgd.assign(
                method=method,
                method_name="jacobian-penalty" if "JJ" in method else "plain",
                hyperparameters='{"strength": 0.0001}' if "JJ" in method else "{}",
                loss="confidence-penalty" if "confidence" in method else "cross-entropy",
                uncertainty_observed=uncertainty * (1 + 0.01 * rng.normal(size=len(sgd))),
                jacobian_trace_observed=trace * (1 + 0.01 * rng.normal(size=len(sgd))),
                jacobian_trace_converged_observed=1.0,
                memorized=share,
                test_accuracy=0.95 - 0.5 * share,
            )
        )
    return pd.concat(runs, ignore_index=True)


def judged(runs):
    (judgement,) = judge(runs, [CLAIMS["E14"]])
    return judgement


def verdict_of(judgement, words):
    (found,) = [each.verdict for each in judgement.controls if each.name.startswith(words)]
    return found


def by_flatness(uncertainty, trace):
    return 0.2 * np.log10(trace) - 0.3


def by_uncertainty(uncertainty, trace):
    return 0.9 - uncertainty


def test_where_only_flatness_protects_the_claim_is_supported_and_being_unsure_does_nothing_at_equal_flatness():
    judgement = judged(study(by_flatness))
    assert [effect.verdict for effect in judgement.effects] == [SUPPORTED_HERE, SUPPORTED_HERE]
    less = "wrong labels memorized: penalty on confidence, equal tr J^T J"
    assert verdict_of(judgement, less) in (EQUIVALENT_HERE, "inconclusive")


def test_where_only_being_unsure_protects_the_claim_is_not_supported_and_its_control_is():
    judgement = judged(study(by_uncertainty))
    assert not {effect.verdict for effect in judgement.effects} & {SUPPORTED_HERE, CONTRADICTED_HERE}
    assert (
        verdict_of(judgement, "wrong labels memorized: penalty on confidence, equal tr J^T J")
        == SUPPORTED_HERE
    )


@pytest.mark.parametrize(
    ("variant", "label"), [(EQUALLY_UNSURE, "confidence 0.6"), (EQUALLY_STEEP, "confidence 2")]
)
def test_the_label_with_the_nearest_mean_is_compared_cell_by_cell(variant, label):
    runs = study(by_flatness)
    assert set(select(runs, variant)["method"]) == {label}
    at_40 = (runs["noise_rate"] == 0.4) & (runs["method"] == "penalty on tr JJ")
    moved = runs.assign(
        uncertainty_observed=runs["uncertainty_observed"].mask(at_40, 0.41),
        jacobian_trace_observed=runs["jacobian_trace_observed"].mask(at_40, 9_500.0),
    )
    chosen = select(moved, variant).groupby("noise_rate")["method"].unique()
    assert list(chosen[0.4]) == ["confidence 0.3"]
    assert list(chosen[0.2]) == [label]


@pytest.mark.parametrize("method", ["penalty on tr JJ", "confidence 2"])
@pytest.mark.parametrize(
    "lost", [{"jacobian_trace_converged_observed": 0.0}, {"jacobian_trace_observed": np.nan}]
)
def test_where_a_value_of_the_matched_networks_is_lost_their_cell_is_named(method, lost):
    runs = study(by_flatness)
    one = (runs["method"] == method) & (runs["noise_rate"] == 0.4) & (runs["seed"] == 0)
    (column, value), *_ = lost.items()
    judgement = judged(runs.assign(**{column: runs[column].mask(one, value)}))
    assert {effect.verdict for effect in judgement.effects} == {SUPPORTED_HERE}
    title = "penalty on confidence, equal tr J^T J"
    missing = f"{title}, d, symmetric 40%, seed 0, 1, 2, 3, 4: no run"
    (of_memorized,) = [
        each for each in judgement.controls if each.name.startswith(f"wrong labels memorized: {title}")
    ]
    assert missing in of_memorized.coverage.missing


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_nearness_does_not_depend_on_the_unit_of_the_quantity(factor):
    runs = study(by_flatness)
    scaled = runs.assign(jacobian_trace_observed=factor * runs["jacobian_trace_observed"] / 1_000)
    assert set(select(scaled, EQUALLY_STEEP)["method"]) == {"confidence 2"}
    apart = scaled["jacobian_trace_observed"].mask(scaled["method"] == "confidence 2", factor * 1.2)
    assert select(scaled.assign(jacobian_trace_observed=apart), EQUALLY_STEEP).empty


def test_a_cell_without_an_equally_unsure_network_is_named():
    runs = study(by_flatness)
    at_40 = (runs["noise_rate"] == 0.4) & (runs["method"] == "penalty on tr JJ")
    apart = runs.assign(uncertainty_observed=runs["uncertainty_observed"].mask(at_40, 0.5))
    assert any("equally unsure, d, symmetric 40%" in missing for missing in judged(apart).missing)
