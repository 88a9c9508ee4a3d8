"""Claims E4 to E6 on studies with a planted truth."""

import numpy as np
import pytest

from analysis.claims import CLAIMS, QUANTITIES, judge
from analysis.claims.effect import CONTRADICTED_HERE, INCONCLUSIVE, SUPPORTED_HERE
from tests.analysis.synthetic_study import table

pytestmark = pytest.mark.usefixtures("quick_judgements")

NOT_PLANTED = {
    "input_curvature_auroc": 0.5,
    "input_curvature_auroc_at_equal_loss": 0.5,
    "loss_auroc": 0.9,
    "critical_learning_rate_observed": 0.4,
    "critical_learning_rate_clean": 0.4,
    "critical_learning_rate_found_observed": 1.0,
    "critical_learning_rate_found_clean": 1.0,
    "top_eigenvalue_observed": 10.0,
    "stability_edge": 10.0,
}


def judged(claim, **planted):
    """The claim's judgement; `planted` holds columns, as numbers or functions of the noise rate."""
    runs = table(seeds=5)
    spread = np.random.default_rng(0).normal(size=(len(runs), len(NOT_PLANTED)))
    columns = {}
    for place, (name, value) in enumerate((NOT_PLANTED | planted).items()):
        values = value(runs["noise_rate"]) if callable(value) else value
        columns[name] = values if "found" in name else values * (1 + 0.01 * spread[:, place])
    (judgement,) = judge(runs.assign(top_eigenvalue_converged_observed=1.0, **columns), [CLAIMS[claim]])
    return judgement


@pytest.mark.parametrize(
    ("claim", "planted", "expected"),
    [
        (
            "E4",
            {"input_curvature_auroc": 0.7, "input_curvature_auroc_at_equal_loss": 0.6},
            [SUPPORTED_HERE, SUPPORTED_HERE],
        ),
        # all that the curvature tells is the loss
        ("E4", {"input_curvature_auroc": 0.7}, [SUPPORTED_HERE, "equivalent in these cells"]),
        ("E4", {"input_curvature_auroc": 0.3}, [CONTRADICTED_HERE, "equivalent in these cells"]),
        (
            "E5",
            {"critical_learning_rate_clean": lambda rate: 0.4 * (1 - rate)},
            [SUPPORTED_HERE, SUPPORTED_HERE],
        ),
        (
            "E5",
            {"critical_learning_rate_clean": lambda rate: 0.4 * (1 + rate)},
            [CONTRADICTED_HERE, CONTRADICTED_HERE],
        ),
        ("E6", {"stability_edge": 40.0}, [SUPPORTED_HERE, SUPPORTED_HERE]),
        ("E6", {"stability_edge": 5.0}, [CONTRADICTED_HERE, CONTRADICTED_HERE]),
    ],
)
def test_a_planted_truth_is_found(claim, planted, expected):
    assert [effect.verdict for effect in judged(claim, **planted).effects] == expected


def test_at_the_edge_itself_the_claim_is_not_supported_and_its_control_is():
    judgement = judged("E6")
    assert all(effect.verdict in (INCONCLUSIVE, "equivalent in these cells") for effect in judgement.effects)
    assert [effect.verdict for effect in judgement.controls[:2]] == [SUPPORTED_HERE, SUPPORTED_HERE]


def test_a_loss_that_rises_at_once_counts_and_a_rate_that_was_not_found_does_not():
    runs = table(seeds=1).assign(**NOT_PLANTED)
    at_once = runs.assign(critical_learning_rate_clean=0.0, critical_learning_rate_found_clean=0.0)
    assert (QUANTITIES["reach"].values(at_once) == -1).all()
    assert QUANTITIES["reach"].values(runs.assign(critical_learning_rate_found_clean=0.0)).isna().all()
    assert QUANTITIES["reach"].values(at_once.assign(critical_learning_rate_found_observed=0.0)).isna().all()
