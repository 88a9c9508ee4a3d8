"""Every number in the sentences of docs/answer.md is that of a committed table."""

import pandas as pd
import pytest

from tests.doc_pages import redrawn_less_fixed, sentences_of, table_named


@pytest.fixture(scope="module")
def page():
    return sentences_of("answer")


@pytest.fixture(scope="module")
def effects():
    both = pd.concat([table_named(f"{name}-verdicts") for name in ("quick", "redrawn")])
    return both[both["verdict"] != "not measured"].drop_duplicates("effect").set_index("effect")


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (
            "tr J^T J, observed labels, SGD: redrawn labels less fixed ones < 0",
            "tr JᵀJ {:+.2f} decades, accuracy",
        ),
        (
            "tr J^T J, observed labels, SGD: redrawn labels less their mean < 0",
            "tr JᵀJ {:+.2f} decades, no difference in relative",
        ),
        (
            "tr J^T J, observed labels: NCSAM less NCSAM without compensation < 0",
            "tr JᵀJ {:+.2f} decades, no difference in accuracy",
        ),
    ],
)
def test_effects_in_decades(page, effects, effect, words):
    assert words.format(effects.loc[effect, "estimate"]) in page


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (
            "clean test accuracy, last epoch, SGD: redrawn labels less fixed ones > 0",
            "accuracy {:+.0f} points",
        ),
        (
            "clean test accuracy, last epoch, SGD: redrawn labels less their mean > 0",
            "accuracy {:+.1f} points",
        ),
        ("clean test accuracy, last epoch: SAM less SGD > 0", "accuracy {:+.1f} points where"),
    ],
)
def test_effects_in_points(page, effects, effect, words):
    assert words.format(100 * effects.loc[effect, "estimate"]) in page


def test_what_is_derived_from_the_effects(page, effects):
    whole = effects.loc["tr J^T J, observed labels, SGD: redrawn labels less fixed ones < 0", "estimate"]
    noise = effects.loc["tr J^T J, observed labels, SGD: redrawn labels less their mean < 0", "estimate"]
    stochastic = effects.loc[
        "tr J^T J, observed labels: SGD, stochastic label noise less SGD < 0", "estimate"
    ]
    assert f"falls {10**-whole:.0f} times below ({-whole:.2f} decades)" in page
    assert f"does {1 - noise / whole:.0%} of it in decades, and noise the other {-noise:.2f} decades" in page
    assert f"makes it smaller by {-stochastic:.2f}" in page


def test_ratios_of_the_mlp_s_mean_results(page):
    results = table_named("redrawn-results")
    results = results[results["method"] == "SGD"].set_index(["noise_kind", "noise_rate"])
    clean = results.loc[("symmetric", 0.0)]

    def ratios(kind, quantity):
        values = [results.loc[(kind, rate), quantity] / clean[quantity] for rate in (0.2, 0.4, 0.6)]
        return min(values), max(values)

    steeper = ratios("symmetric", "jacobian_trace_observed_mean")
    assert "tr JᵀJ is {:.1f} to {:.1f} times that with clean labels".format(*steeper) in page
    sharper = ratios("symmetric, redrawn each step", "sharpness_elementwise_clean_mean")
    assert "redrawn labels is still {:.0f} to {:.0f} times that with clean labels".format(*sharper) in page


@pytest.mark.parametrize("measure", ["top_eigenvalue_observed_mean", "sharpness_clean_mean"])
def test_the_mean_of_redrawn_labels_does_not_flatten_by_plain_measures(measure):
    results = table_named("redrawn-results").set_index("method")
    of_mean = results.loc[[f"SGD, mean of labels redrawn at {rate}%" for rate in (20, 40, 60)], measure]
    fixed = results[(results["noise_kind"] == "symmetric") & (results["noise_rate"] > 0)].loc["SGD", measure]
    assert of_mean.mean() > fixed.mean()


def test_what_is_said_of_the_quick_study(page, effects):
    growth = effects.loc["tr J^T J, observed labels against noise rate, SGD > 0"]
    assert growth["verdict"] == "inconclusive"
    words = "({:+.2f} decades [{:+.2f}, {:+.2f}] per 100%)".format(*growth[["estimate", "low", "high"]])
    assert f"no growth of tr JᵀJ was found {words}" in page


def test_the_cnn_s_numbers(page):
    results = table_named("redrawn-cnn-results").set_index(["noise_kind", "noise_rate", "method"])
    jacobian, accuracy = redrawn_less_fixed(
        "redrawn-cnn", "tr J^T J, observed labels", "clean test accuracy, last epoch"
    )
    clean, fixed = (results.loc[("symmetric", rate, "SGD")] for rate in (0.0, 0.4))
    assert f"In a CNN the gap is {-jacobian:.2f} decades and {100 * accuracy:.0f} points" in page
    assert f"tr JᵀJ {jacobian:+.2f} decades, accuracy {100 * accuracy:+.0f} points" in page
    assert f"memorized only {fixed['memorized_mean']:.0%} of the labels" in page
    assert fixed["jacobian_trace_observed_mean"] < clean["jacobian_trace_observed_mean"]


def test_the_resnet_s_numbers(page):
    jacobian, accuracy, eigenvalue = redrawn_less_fixed(
        "redrawn-resnet",
        "tr J^T J, observed labels",
        "clean test accuracy, last epoch",
        "top eigenvalue, observed labels",
    )
    assert f"on photographs {-jacobian:.2f} decades and {100 * accuracy:.0f} points" in page
    assert (
        f"tr JᵀJ {jacobian:+.2f} decades, accuracy {100 * accuracy:+.0f} points, "
        f"top eigenvalue {eigenvalue:+.2f} decades" in page
    )
    assert f"is {10**eigenvalue:.0f} times ({eigenvalue:.2f} decades) smaller" in page


@pytest.mark.parametrize(
    ("effect", "verdict", "words"),
    [
        (
            "sharpness elementwise, true labels, SGD: redrawn labels less their mean < 0",
            "inconclusive",
            "no difference in relative sharpness found",
        ),
        (
            "clean test accuracy, last epoch: NCSAM less NCSAM without compensation > 0",
            "inconclusive",
            "no difference in accuracy found",
        ),
    ],
)
def test_verdicts(page, effects, effect, verdict, words):
    assert effects.loc[effect, "verdict"] == verdict
    assert words in page
