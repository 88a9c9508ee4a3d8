"""The report's first sentences say no more than the tests do."""

import pytest

from analysis.claims import SAM, SGD, Claim, Difference, Trend, judge
from analysis.report.answer import answer
from tests.analysis.synthetic_study import table

CURVATURE = Claim("X1", "It grows.", "here", [Trend("top_eigenvalue_observed", SGD, 1)])
ACCURACY = Claim("X2", "SAM is better.", "here", [Difference("test_accuracy", SAM, SGD, 1)])


def said(runs, *claims):
    runs = runs[runs["method"].isin(["SGD", "SAM"])]
    return answer(runs, judge(runs, claims))


@pytest.mark.parametrize(
    ("growth", "noise", "words"),
    [
        (1.0, 1e-3, "grows with the share of wrong labels in these cells (X1.1, "),
        (-0.4, 1e-3, "falls with the share of wrong labels in these cells (X1.1, "),
        (0.0, 1e-4, "by less than the margin in these cells (X1.1, "),
        (0.05, 0.9, "may grow or fall with the share of wrong labels: this is open (X1.1, "),
    ],
)
def test_the_sentence_on_curvature_follows_the_verdict(growth, noise, words):
    _, curvature, _ = said(table(noise=noise, seeds=3, growth=growth), CURVATURE)
    assert f"The top eigenvalue of the cross-entropy around SGD {words}" in curvature.replace(
        "changes with the share of wrong labels ", ""
    )
    assert "decades per 100% wrong labels, p" in curvature
    assert "12 runs" in curvature
    assert "(s.d., n = 3) at 0% and" in curvature


@pytest.mark.parametrize(
    "other", [Trend("top_eigenvalue_observed", SGD, -1), Trend("top_eigenvalue_observed", SGD, 1, "width")]
)
def test_a_claim_that_predicts_no_growth_with_noise_says_nothing_of_growth(other):
    runs = table(seeds=3, growth=1.0).assign(width=lambda runs: 10 * (1 + runs["seed"]))
    _, curvature, _ = said(runs, Claim("X3", "Something else.", "here", [other]))
    assert "share of wrong labels" not in curvature


def test_without_a_claim_that_tests_a_difference_none_is_stated():
    accuracy, curvature, _ = said(table(seeds=2))
    assert "No claim tests the difference." in accuracy
    assert curvature.endswith("at 60% wrong labels. No claim tests the difference.")


def test_accuracies_have_their_spread_their_number_and_the_test_of_their_difference():
    runs = table(noise=0.01, seeds=3)
    accuracy, _, _ = said(runs, ACCURACY)
    of_best = 100 * runs.loc[(runs["method"] == "SAM") & (runs["noise_rate"] == 0.6), "test_accuracy"]
    best = f"SAM has the highest mean accuracy, {of_best.mean():.1f}% ± {of_best.std():.1f}% (s.d., n = 3)"
    assert accuracy.startswith(f"At 60% wrong labels {best}, and SGD the lowest, ")
    assert "X2.1, clean test accuracy, last epoch: SAM less SGD > 0: supported in these cells, " in accuracy


def test_values_that_did_not_converge_enter_no_mean():
    runs = table(seeds=3)
    is_lost = (runs["method"] == "SGD") & (runs["noise_rate"] == 0.6) & (runs["seed"] == 0)
    runs["top_eigenvalue_converged_observed"] = 1.0 - is_lost
    _, curvature, _ = said(runs, CURVATURE)
    assert "(s.d., n = 2) at 60% wrong labels; 1 of 12 runs diverged or did not converge." in curvature


def test_means_are_those_of_one_data_set_which_is_named():
    runs = table(seeds=2)
    accuracy, curvature, _ = said(
        runs.assign(dataset=runs["seed"].map(["a", "b"].__getitem__), seed=0), CURVATURE
    )
    assert "At 60% wrong labels (a) SAM" in accuracy
    assert "(n = 1) at 60% wrong labels (a)" in curvature
