"""What the pages say of the penalty on flatness, of the six series and of the landscape studies is in the tables."""

import numpy as np
import pytest

from analysis.plan.run_config import REDRAWN
from tests.doc_pages import assert_said, rows_marked, table_named


@pytest.fixture(scope="module")
def effects():
    verdicts = table_named("trace-penalty-verdicts")
    assert set(verdicts["claim_verdict"]) == {"supported in these cells"}
    return verdicts.set_index("effect")


@pytest.fixture(scope="module")
def results():
    return table_named("trace-penalty-results").set_index(["method", "noise_rate"])


def over_sgd(effects, words, method="penalty on tr J^T J", sign="<"):
    return effects.loc[f"{words}: {method} less SGD {sign} 0"]


def test_what_is_said_of_the_penalty_against_sgd_is_in_the_table(effects, results):
    accuracy = over_sgd(effects, "clean test accuracy, last epoch", sign=">")
    low, high = (100 * accuracy[name] for name in ("low", "high"))
    fisher = "penalty on the Fisher trace"
    recovered = "true labels of wrongly labeled samples recovered"
    decades = f"{-over_sgd(effects, 'tr J^T J, observed labels')['estimate']:.2f} decades"
    fewer = f"{-100 * over_sgd(effects, 'wrong labels memorized')['estimate']:.0f} points"
    gain = f"{100 * accuracy['estimate']:.1f} points"
    unsure = over_sgd(effects, "uncertainty of the predictions, observed labels", sign=">")["estimate"]
    by_fisher = [
        over_sgd(effects, words, fisher, sign)["estimate"]
        for words, sign in (("clean test accuracy, last epoch", ">"), ("tr J^T J, observed labels", "<"))
    ]
    recovered_late = over_sgd(effects, recovered, sign=">")
    recovered_best = over_sgd(effects, f"{recovered}, best epoch", sign=">")
    of_best = results["best_test_accuracy_mean"]
    best = 100 * (of_best.loc["penalty on tr JJ"] - of_best.loc["SGD"])
    relative = over_sgd(effects, "sharpness elementwise, true labels")
    assert recovered_best["verdict"] == "inconclusive"
    assert_said(
        {
            "findings/explanations": (
                f"lowers tr JᵀJ by {decades} against SGD; the network memorizes {fewer} fewer",
                f"is {gain} more accurate [{low:.1f}, {high:.1f}]",
                f"gives {100 * recovered_late['estimate']:.0f} points more of the wrongly labeled samples their true",
                "is not told apart ({:.1f} points [{:.1f}, {:.1f}])".format(
                    *(100 * recovered_best[name] for name in ("estimate", "low", "high"))
                ),
                "({:+.2f} decades [{:.2f}, {:.2f}])".format(*relative[["estimate", "low", "high"]]),
                f"{100 * by_fisher[0]:.1f} points of accuracy, and a tr JᵀJ lower by {-by_fisher[1]:.2f} decades",
                "gains {:.1f}, {:.1f} and {:.1f} points at".format(*best),
                f"(uncertainty {unsure:+.2f}",
            ),
            "answer": (
                f"has a tr JᵀJ {decades} below that of SGD, memorizes {fewer} fewer wrong labels and is {gain} more",
                f"tr JᵀJ -{decades}, wrong labels memorized -{fewer}, accuracy +{gain}",
            ),
        }
    )


def test_what_is_said_of_the_penalty_against_other_methods_is_in_the_table(effects, results):
    penalty, fisher = (results.loc[name] for name in ("penalty on tr JJ", "Fisher penalty"))
    less, flatter = (
        effects.loc[f"{words}: penalty on tr J^T J less SAM = 0, within the margin"]
        for words in ("clean test accuracy, last epoch", "tr J^T J, observed labels")
    )
    assert (less["verdict"], flatter["verdict"]) == ("inconclusive", "contradicted in these cells")
    sharper = fisher["jacobian_trace_observed_mean"] / penalty["jacobian_trace_observed_mean"]
    better = 100 * (fisher["test_accuracy_mean"] - penalty["test_accuracy_mean"])
    assert_said(
        {
            "findings/explanations": (
                "tr JᵀJ lies {:.2f} decades [{:.2f}, {:.2f}] below that of SAM".format(
                    *-flatter[["estimate", "high", "low"]]
                ),
                "accuracy {:.1f} points below [{:.1f}, {:.1f}]".format(
                    *-100 * less[["estimate", "high", "low"]]
                ),
                f"is {sharper[0.2]:.1f} times that of the Jacobian penalty, and it is {better[0.2]:.1f} points more",
            ),
            "answer": (f"is {-100 * less['estimate']:.1f} points less accurate than SAM",),
        }
    )


def test_what_one_choice_for_all_seeds_gave_is_in_the_table(results):
    place = ("Fisher penalty", 0.2)
    before = table_named("trace-penalty-one-choice-results").set_index(["method", "noise_rate"])
    one, each = (100 * table.loc[place, "test_accuracy_mean"] for table in (before, results))
    assert_said(
        {"findings/explanations": (f"{one:.1f}% accurate; with a choice for each seed it is {each:.1f}%",)}
    )


NAMES = {"mnist-5k": "MNIST digits", "fashion-mnist": "Fashion-MNIST", "digits": "digits of scikit-learn"}


def cell_rows():
    """One row for each cell with wrong labels: tr J^T J and accuracy of SGD with fixed and with redrawn labels."""
    results = table_named("redrawn-cells-results")
    results = results[(results["method"] == "SGD") & (results["noise_rate"] > 0)]
    is_redrawn = results["noise_kind"].str.endswith(REDRAWN)
    cell = ["dataset", "noise_kind", "noise_rate"]
    results = results.assign(noise_kind=results["noise_kind"].str.removesuffix(REDRAWN))
    fixed, redrawn = (results[chosen].set_index(cell) for chosen in (~is_redrawn, is_redrawn))
    return [
        "| {} | {} | {:.0%} | {:,.0f} | {:,.0f} | {:.1f} | {:.1f} |".format(
            NAMES[place[0]],
            *place[1:],
            *(runs.loc[place, "jacobian_trace_observed_mean"] for runs in (fixed, redrawn)),
            *(100 * runs.loc[place, "test_accuracy_mean"] for runs in (fixed, redrawn)),
        )
        for place in fixed.index
    ]


def test_the_table_of_the_cells_is_the_committed_one():
    assert rows_marked("redrawn-cells")[2:] == cell_rows()


def test_what_is_said_of_the_six_series_is_in_the_table():
    verdicts = table_named("redrawn-cells-verdicts")
    assert set(verdicts["claim_verdict"]) == {"supported"}
    effects = verdicts.set_index("effect")

    def of(words, sign):
        row = effects.loc[f"{words}, SGD: redrawn labels less fixed ones {sign} 0"]
        assert row["verdict"] == "supported"
        return row["estimate"]

    jacobian, relative = of("tr J^T J, observed labels", "<"), of("sharpness elementwise, true labels", "<")
    gap = f"{-jacobian:.2f} decades"
    points = f"{100 * of('clean test accuracy, last epoch', '>'):.0f} points"
    runs = table_named("redrawn-cells-results")
    runs = runs[runs["method"] == "SGD"].set_index(["dataset", "noise_kind", "noise_rate"])
    traces = runs["jacobian_trace_observed_mean"].sort_index()
    pair = traces["mnist-5k", f"pair{REDRAWN}"]
    fashion = traces["fashion-mnist", "symmetric"]
    accuracies = 100 * runs["test_accuracy_mean"]
    wrong_mean = ("mnist-5k", "part-dependent", 0.6), ("mnist-5k", f"part-dependent{REDRAWN}", 0.6)
    assert_said(
        {
            "findings/redrawn-labels": (
                f"tr JᵀJ is {gap} below",
                f"relative sharpness {-relative:.2f} below, and accuracy {points} above",
                f"{pair.min():,.0f} to {pair.max():,.0f} on digits",
                f"is {traces[wrong_mean[0]] / traces[wrong_mean[1]]:.1f} times lower than with fixed labels",
                "({:.1f}% and {:.1f}%)".format(*(accuracies[where] for where in wrong_mean[::-1])),
                f"falls from {fashion[0.0]:,.0f} without wrong labels to {fashion[0.6]:,.0f} with 60%",
            ),
            "answer": (f"it falls by {gap}, with accuracy {points} higher",),
        }
    )


def test_what_is_said_of_these_cells_by_hand_follows_from_the_means_and_spreads_of_the_table():
    """Means of logarithms, and their errors, from the means and spreads of values (delta method), as if unpaired."""
    runs = table_named("redrawn-cells-results")
    runs = runs[(runs["method"] == "SGD") & (runs["noise_rate"] > 0)]
    redrawn = runs["noise_kind"].str.endswith(REDRAWN)
    cell = ["dataset", "noise_kind", "noise_rate"]
    kinds = runs["noise_kind"].str.removesuffix(REDRAWN)
    fixed, fresh = (runs.assign(noise_kind=kinds)[of].set_index(cell) for of in (~redrawn, redrawn))
    fresh = fresh.loc[fixed.index]
    errors, lower = {}, {}
    for name, decades in (
        ("jacobian_trace_observed", 1),
        ("sharpness_elementwise_clean", 1),
        ("test_accuracy", 0),
    ):
        scale = [each[f"{name}_mean"] * np.log(10) if decades else 1 for each in (fixed, fresh)]
        parts = [(each[f"{name}_std"] / one) ** 2 for each, one in zip((fixed, fresh), scale, strict=True)]
        variances = sum(parts) / fixed[f"{name}_count"]
        errors[name] = variances.sum() ** 0.5 / len(fixed)
        lower[name] = int((fresh[f"{name}_mean"] < fixed[f"{name}_mean"]).sum())
    jacobian, relative, accuracy = errors.values()
    assert_said(
        {
            "findings/redrawn-labels": (
                f"standard errors of {jacobian:.3f}, {relative:.3f} and {100 * accuracy:.1f} points",
                f"lower in {lower['sharpness_elementwise_clean']} of {len(fixed)}",
            )
        }
    )
    assert (lower["jacobian_trace_observed"], lower["test_accuracy"]) == (len(fixed), 0)


def test_what_is_said_of_sharpness_measured_anew_is_in_the_table():
    anew = table_named("sharpness-anew")
    change = anew["anew"] / anew["before"] - 1
    moved = change[change.abs() > 0.01]
    assert (anew.loc[moved.index, "noise_rate"] > 0).sum() == 1
    said = f"of its {len(anew)} means of sharpness"
    assert_said(
        {
            "findings/what-changed": (
                said,
                f"{len(moved)} moved by more than 1%, from {min(moved):.0%} to {max(moved):+.0%}",
            )
        }
    )


def test_what_is_said_of_the_search_from_more_starts_is_in_its_tables():
    wider = table_named("sharpness-wider")
    change = wider["anew"] / wider["before"] - 1
    moved = change[change.abs() > 0.01]
    assert moved.min() > 0
    assert wider.loc[moved.index, "measure"].isin(["sharpness_observed", "sharpness_clean"]).mean() > 0.5
    starts = table_named("sharpness-starts").set_index(["adaptive", "search"])
    today, before = (starts.loc[("none", search)] for search in ("sharpness", "no classes"))
    assert (starts.drop(("none", "no classes"))["missed"] == 0).all()
    assert starts.xs("sharpness", level="search")["worst"].max() <= 0.001
    assert today["gradients"] <= before["gradients"]
    assert today["class_before"] == pytest.approx(0.1, abs=0.02)
    assert today["class_after"] == pytest.approx(0.5, abs=0.02)
    l2 = (
        table_named("quick-verdicts")
        .set_index("effect")
        .loc["sharpness, ratio of true to observed labels: SAM less SGD > 0"]
    )
    gap = "{:.3f} decades [{:.3f}, {:+.3f}]".format(*l2[["estimate", "low", "high"]])
    assert l2["verdict"] == "inconclusive"
    assert_said(
        {
            "findings/what-changed": (
                f"of its {len(wider)} means of sharpness, {len(moved)} rose by more than 1%",
                f"by up to {moved.max():.0%}",
                f"missed {before['missed']:.0f} of {before['searches']:.0f} plain ones by more than 3%, by up to "
                f"{before['worst']:.0%}",
            ),
            "findings/quick": (gap,),
        }
    )


@pytest.fixture(scope="module")
def landscapes():
    return table_named("landscapes-verdicts").set_index("effect")


def estimate_and_interval(effects, name, sign=1):
    estimate, *ends = sign * effects.loc[name, ["estimate", "low", "high"]]
    return f"{estimate:.2f} " + "[{:.2f}, {:.2f}]".format(*sorted(ends))


def test_what_is_said_of_noise_in_the_four_landscape_studies_is_in_the_table(landscapes):
    predicted = landscapes.query("claim == 'L1' and role == 'prediction'")
    assert set(predicted["verdict"]) == {"supported in these cells"}

    def of(measure, method="SGD"):
        return estimate_and_interval(landscapes, f"{measure} against noise rate, {method} > 0")

    def decades(measure, method="SGD"):
        return f"{abs(landscapes.loc[f'{measure} against noise rate, {method} > 0', 'estimate']):.2f}"

    eigenvalue = of("top eigenvalue, observed labels").replace(" [", " decades per 100% wrong labels [")
    relative = "trace of the Gauss-Newton matrix to uncertainty, observed labels"
    falls = [decades("sharpness, true labels", method) for method in ("SAM", "NCSAM")]
    assert_said(
        {
            "findings/flatness": (
                f"top eigenvalue by {eigenvalue}",
                f"sharpness by {of('sharpness, observed labels')} with observed labels",
                f"and {of('sharpness, true labels')} with true ones",
                f"grows by {decades('uncertainty of the predictions, observed labels')} decades",
                f"tr JᵀJ grows by {of('tr J^T J, observed labels')}",
                f"apart from constant ({of('largest eigenvalue of J^T J, observed labels')})",
                f"Gauss-Newton trace falls, by {decades(relative)}",
                f"by {falls[0]} and {falls[1]} decades: they fit fewer",
            ),
        }
    )


def test_what_is_said_of_methods_in_the_four_landscape_studies_is_in_the_table(landscapes):
    observed = landscapes.loc["sharpness, observed labels: SAM less SGD < 0"]
    assert observed["not_converged"] == 0
    assert observed["verdict"] == "supported in these cells"
    assert set(landscapes.query("claim == 'L2'")["claim_verdict"]) == {"equivalent in these cells"}
    assert set(landscapes.query("claim == 'L3'")["claim_verdict"]) == {"inconclusive"}
    flatter, of_ncsam = (
        estimate_and_interval(landscapes, f"sharpness, true labels: {pair} < 0", sign=-1).replace(
            " [", " decades ["
        )
        for pair in ("SAM less SGD", "NCSAM less SAM")
    )
    eigenvalue, trace, ratio = (
        estimate_and_interval(landscapes, f"{name}, ratio of true to observed labels: SAM less SGD > 0")
        for name in ("top eigenvalue", "trace", "sharpness")
    )
    over_methods = "{} labels with clean test accuracy, last epoch over methods, within noise rate{} < 0"
    plain, true, functional = (
        estimate_and_interval(landscapes, over_methods.format(name, ""))
        for name in ("sharpness, observed", "sharpness, true", "norm of the functional Hessian, true")
    )
    given = landscapes.loc[
        [
            over_methods.format(f"sharpness, {labels}", ", given training loss")
            for labels in ("observed", "true")
        ],
        "estimate",
    ]
    corrected = landscapes.loc[over_methods.format("norm of the functional Hessian, true", ""), "p"]
    assert_said(
        {
            "findings/flatness": (
                f"with true labels by {flatter}",
                f"as large ({observed['estimate']:.2f})",
                f"flatter than SAM, by {of_ncsam}",
                f"true to observed sharpness changes by {ratio}".replace(" [", " decades ["),
                f"that of the trace by {trace}",
                f"not told apart ({eigenvalue})",
                f"tau is {plain} with observed and {true} with true",
                "({:+.2f} and {:+.2f})".format(*given),
                f"({functional}; {corrected:.3f} after correction)",
            ),
            "answer": (f"{true} over four studies",),
        }
    )


def test_the_table_of_methods_is_the_committed_one():
    of_rates = table_named("flatness-results").query("noise_rate > 0").groupby("method", sort=False)
    rows = [
        f"| {method} | {' | '.join(f'{100 * a:.1f} / {s:.2f}' for a, s in zip(*pair, strict=True))} |"
        for method, of in of_rates
        for pair in [(of["test_accuracy_mean"], of["sharpness_clean_mean"])]
    ]
    assert rows_marked("flatness-results")[2:] == rows


def most_accurate(results):
    return results["test_accuracy_mean"].unstack().idxmax()


def flattest_by_true_labels(results):
    return results["sharpness_clean_mean"].unstack().idxmin()


def test_what_is_said_of_flat_methods_is_in_the_tables():
    verdicts = table_named("flatness-verdicts")
    assert set(verdicts["claim_verdict"]) == {"inconclusive"}
    of_claim = verdicts.set_index("effect")
    given, tau = (
        of_claim.loc[
            f"sharpness, true labels with clean test accuracy, last epoch over methods, within noise rate{given} < 0"
        ]
        for given in (", given training loss", "")
    )
    intervals = [f"{row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for row in (tau, given)]
    results = table_named("flatness-results").query("noise_rate > 0").set_index(["method", "noise_rate"])
    accuracy, sharpness = 100 * results["test_accuracy_mean"], results["sharpness_clean_mean"]
    measured_alike = ["test_accuracy_mean", "sharpness_observed_mean", "sharpness_clean_mean"]
    assert results.loc["SAM", measured_alike].equals(results.loc["SAM, rho 0.2", measured_alike])
    of_rates = results["sharpness_observed_mean"].groupby("noise_rate").idxmin()
    assert {rate for name, rate in of_rates if name == "SAM, rho 0.5"} == {0.2, 0.4}
    best, flattest = (found(results) for found in (most_accurate, flattest_by_true_labels))
    assert flattest[0.6] == "SAM, rho 0.5"
    assert flattest[0.2] == best[0.2] == "NCSAM, opposite sign"
    controls = verdicts[(verdicts["role"] == "control") & verdicts["p"].notna()]
    nearest = controls.loc[controls["p"].idxmin()]
    lost = accuracy["SAM, rho 0.2"] - accuracy["SAM, rho 0.5"]
    assert sharpness["SAM, rho 0.05"].gt(sharpness["SAM, rho 0.2"]).all()
    assert sharpness["SAM, rho 0.2"].gt(sharpness["SAM, rho 0.5"]).all()
    assert accuracy["SAM, rho 0.2"].gt(accuracy["SAM, rho 0.05"]).all()
    memorizing = ["SGD", "SAM, rho 0.05", "ASAM, rho 0.5"]
    of_memorizing = results.loc[memorizing]
    assert of_memorizing["memorized_mean"].between(0.48, 0.75).all()
    times = sharpness.loc[memorizing] / sharpness["SAM, rho 0.2"]
    assert accuracy["SAM, oracle"].lt(accuracy["SAM, rho 0.2"]).all()
    assert sharpness["SAM, oracle"].gt(sharpness["SAM, rho 0.2"]).all()
    assert_said(
        {
            "findings/flatness": (
                f"accuracy is {intervals[0]}, with either labeling",
                f"({intervals[1]})",
                f"of the {len(controls)} controls that were measured",
                "with a tau of {:.2f} [{:.2f}, {:.2f}] and a p of {:.3f}".format(
                    *nearest[["estimate", "low", "high", "p"]]
                ),
                "is {:.0f}, {:.0f} and {:.0f} points less accurate".format(*lost),
                f"At 60% it ends at {accuracy['SAM, rho 0.5', 0.6]:.1f}%",
                f"are {times.min():.1f} to {times.max():.1f} times as sharp",
            ),
            "answer": (
                f"Kendall's tau is {intervals[0]} (L3)",
                f"with observed labels, and is {lost[0.4]:.0f} points less accurate",
            ),
        }
    )
