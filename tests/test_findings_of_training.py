"""What the pages of findings say of early noise, spectra of the weights, early Fisher traces and damping."""

import numpy as np
import pytest

from ncsam.probes import GROUPS
from tests.doc_pages import assert_said, rows_marked, table_named

TAIL = "tail index of the weight matrices' spectra"
NORM = "norm of the weight matrices"
AGAINST = "against noise rate, SGD > 0"
REDRAWN = "SGD: redrawn labels less fixed ones < 0"


def effects_of(study):
    return table_named(f"{study}-verdicts").set_index("effect")


def less(row, times=1.0, digits=1):
    """The effect of the other sign, with its interval."""
    low, middle, high = (-times * row[name] for name in ("high", "estimate", "low"))
    return f"{middle:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"


@pytest.fixture(scope="module")
def cells():
    """Means of the cells with fixed and with redrawn labels, and of those without wrong labels."""
    return table_named("spectra-results")


def of_fixed_labels(cells, name):
    """Percentages of each method in each cell whose wrong labels stay."""
    fixed = cells[(cells["noise_rate"] > 0) & ~cells["noise_kind"].str.contains("redrawn")]
    return 100 * fixed.pivot_table(
        f"{name}_mean", ["dataset", "noise_kind", "noise_rate"], "method", sort=False
    )


def sgd_less_sam(cells, name):
    shares = of_fixed_labels(cells, name)
    return shares["SGD"] - shares["SAM"]


def test_what_is_said_of_early_noise_is_in_the_tables(cells):
    effects = effects_of("early-noise")
    assert set(effects.loc[effects["claim"] == "E8", "claim_verdict"]) == {"inconclusive"}
    memorized = [
        effects.loc[f"wrong labels memorized{when}: SAM less SGD < 0"]
        for when in (
            ", mean over the first tenth of the epochs",
            " when seven eighths of the right labels are first fitted",
            "",
        )
    ]
    early, fit, last = (less(row, 100) for row in memorized)
    p_early, p_fit, p_last = (f"{row['p']:.3f}" for row in memorized)
    fitted = effects.loc[
        "right labels fitted, mean over the first tenth of the epochs: SAM less SGD = 0, within the margin"
    ]
    assert fitted["verdict"] == "inconclusive"
    gaps, at_fit = (sgd_less_sam(cells, name) for name in ("early_memorized", "memorized_at_fit"))
    fashion, digits = gaps["fashion-mnist", "symmetric"], gaps["digits", "symmetric"]
    sgd = of_fixed_labels(cells, "memorized_at_fit")["SGD"].sort_values()
    assert sgd.index[-1] == ("mnist-5k", "part-dependent", 0.6)
    assert_said(
        {
            "findings/explanations": (
                f"SGD has memorized {early[0]} points more wrong labels {early[1]}",
                f"first fitted, {fit[0]} points more {fit[1]}",
                f"p is {p_early} and {p_fit}",
                f"between {at_fit.min():.2f} and {at_fit.max():.1f} points, with a median of {at_fit.median():.1f}",
                f"memorized {sgd.iloc[-1]:.0f}% of the wrong labels with part-dependent noise of 60%",
                f"it has fitted {-100 * fitted['estimate']:.1f} points less",
                f"memorized {last[0]} points more wrong labels, which is inconclusive too (p is {p_last})",
                f"of 30% on MNIST digits the early gap is {gaps['mnist-5k', 'pair', 0.3]:.1f} points",
                f"Fashion-MNIST {fashion.min():.1f} to {fashion.max():.1f}",
                f"the other sign ({digits.min():.1f} to {digits.max():.1f})",
            ),
        }
    )


def test_what_is_said_of_spectra_is_in_the_tables(cells):
    alone, together = effects_of("early-noise"), effects_of("spectra")
    assert set(alone.loc[alone["claim"] == "E9", "claim_verdict"]) == {"inconclusive"}
    assert together.loc[f"{TAIL} {AGAINST}", "verdict"] == "supported"
    assert together.loc[f"{TAIL}, {REDRAWN}", "verdict"] == "inconclusive"
    growth = alone.loc[f"{TAIL} {AGAINST}"]
    redrawn, of_norm = (less(together.loc[f"{name}, {REDRAWN}"], digits=2) for name in (TAIL, NORM))
    stays = (cells["noise_rate"] > 0) & ~cells["noise_kind"].str.contains("redrawn")
    index = cells["weight_tail_index_mean"]
    both, norm = together.loc[f"{TAIL} {AGAINST}"], alone.loc[f"{NORM} {AGAINST}"]
    places = cells.set_index(["dataset", "noise_kind", "noise_rate", "method"])["weight_tail_index_mean"]
    by_parts = places.sort_index()["mnist-5k", "part-dependent, redrawn each step"].xs("SGD", level="method")
    assert by_parts[0.6] == index[~stays].max()
    assert_said(
        {
            "findings/explanations": (
                f"grows by {growth['estimate']:.2f} per 100% wrong labels [{growth['low']:.2f}, {growth['high']:.2f}]",
                f"that is inconclusive (p is {growth['p']:.3f})",
                f"the growth is {both['estimate']:.2f} [{both['low']:.2f}, {both['high']:.2f}] and supported",
                f"index is {redrawn[0]} lower {redrawn[1]}",
                f"between {index[~stays].min():.2f} and {index[~stays].max():.2f} where labels are right or redrawn",
                f"and between {index[stays].min():.2f} and {index[stays].max():.2f} where wrong labels stay",
                f"({by_parts[0.2]:.2f} with SGD at 20%, {by_parts[0.6]:.2f} at 60%)",
                f"grows by {norm['estimate']:.2f} decades per 100% [{norm['low']:.2f}, {norm['high']:.2f}]",
                f"norm {of_norm[0]} decades lower {of_norm[1]}",
            )
        }
    )


def test_what_is_said_of_simulated_labels_at_equal_uncertainty_is_in_the_table():
    verdicts = effects_of("at-uncertainty")
    assert set(verdicts["claim_verdict"]) == {"contradicted in these cells"}
    trace = "trace of the Gauss-Newton matrix to uncertainty, observed labels"
    over = "less NCSAM without compensation"
    shown = [
        f"{row['estimate']:.2f} {words}[{row['low']:.2f}, {row['high']:.2f}]"
        for method, words in (
            ("NCSAM", "decades above that without compensation "),
            ("NCSAM, random flips", ""),
        )
        for row in [verdicts.loc[f"{trace}: {method} {over} < 0"]]
    ]
    in_gradient = -verdicts.loc[f"{trace}: SGD, stochastic label noise less SGD < 0", "estimate"]
    redrawn = -verdicts.loc[f"{trace}, {REDRAWN}", "estimate"]
    unsure = (
        f"uncertainty of the predictions, observed labels: NCSAM, random flips {over} = 0, within the margin"
    )
    opposite = verdicts.loc[f"{trace}: NCSAM, opposite sign {over} > 0"]
    assert verdicts.loc[unsure, "verdict"] == "inconclusive"
    assert opposite["verdict"] == "supported in these cells"
    assert_said(
        {
            "findings/redrawn-labels": (
                f"is {shown[0]}, with random flips {shown[1]}",
                f"takes {in_gradient:.2f} decades, redrawn labels take {redrawn:.2f}",
                "The opposite sign sharpens too ({:.2f} [{:.2f}, {:.2f}])".format(
                    *opposite[["estimate", "low", "high"]]
                ),
            ),
            "answer": (f"{shown[0][:4]} decades more, against {in_gradient:.2f} less (F5",),
        }
    )


def damping_row(method, of):
    """A method's row of the table of damping as the page has it."""
    cells = []
    for _, row in of.sort_values("noise_rate").iterrows():
        cells += [f"{row[f'mean_probe_damping_{group}_mean']:+.2f}" for group in GROUPS]
        cells += [f"{100 * row['memorized_mean']:.0f}", f"{100 * row['test_accuracy_mean']:.1f}"]
    return f"| {' | '.join([method, *cells])} |"


def test_the_table_of_damping_is_the_committed_one():
    results = table_named("damping-results").groupby("method", sort=False)
    assert rows_marked("damping-results")[2:] == [damping_row(method, of) for method, of in results]


def test_what_is_said_of_damping_is_in_the_tables():
    verdicts = effects_of("damping")
    assert set(verdicts["claim_verdict"]) == {"contradicted in these cells"}
    norm, over = "norm of the gradient at w + eps to that at w", "less NCSAM without compensation"
    ambiguous, confident = (
        less(
            verdicts.loc[f"{norm}, rightly labeled samples with a margin {margin}: NCSAM {over} < 0"],
            digits=2,
        )
        for margin in ("below their median", "of at least their median")
    )
    wrong, contrast, flips, opposite = (
        f"{row['estimate']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        for who, method, sign in (
            ("wrongly labeled samples", "NCSAM", "<"),
            ("ambiguous to confident samples", "NCSAM", "<"),
            ("ambiguous to confident samples", "NCSAM, random flips", "<"),
            ("ambiguous to confident samples", "NCSAM, opposite sign", ">"),
        )
        for row in [verdicts.loc[f"{norm}, {who}: {method} {over} {sign} 0"]]
    )
    results = table_named("damping-results").set_index(["method", "noise_rate"])
    by_rate = [
        results[f"mean_probe_damping_{group}_mean"]["NCSAM"]
        - results[f"mean_probe_damping_{group}_mean"]["NCSAM, no compensation"]
        for group in ("ambiguous", "confident")
    ]
    rates = tuple(rate for of_group in by_rate for rate in of_group)
    at_20, at_40 = ([-of_group[rate] for of_group in by_rate] for rate in (0.2, 0.4))
    cosine = results["mean_cos_gstar_noise_mean"]["NCSAM"]
    of_contrast = results["mean_probe_damping_ambiguous_mean"] - results["mean_probe_damping_confident_mean"]
    by_flips = (of_contrast["NCSAM, random flips"] - of_contrast["NCSAM"]).mean()
    memorized, accuracy = 100 * results["memorized_mean"], 100 * results["test_accuracy_mean"]
    without = "NCSAM, no compensation"
    lost = accuracy[without] - accuracy["NCSAM"]
    assert_said(
        {
            "findings/the-method": (
                f"by {ambiguous[0]} decades {ambiguous[1]}, as H1 predicts",
                f"smaller too, by {confident[0]} {confident[1]}",
                f"({wrong})",
                f"the contrast is {contrast}",
                "{:.2f} decades at 20% and {:.2f} at 40%, that of confident ones {:.2f} and {:.2f}".format(
                    *rates
                ),
                "is {:+.2f} at 20%, against H1, and {:+.2f} at 40%".format(*cosine),
                f"change the contrast too ({flips}), and by {by_flips:.2f} decades",
                f"that predicted ({opposite})",
                f"memorizes {memorized['NCSAM', 0.2]:.0f}% of them at 20% noise, and {memorized[without, 0.2]:.0f}%",
                f"its accuracy is {lost[0.2]:.1f} and {lost[0.4]:.1f} points lower",
            ),
            "answer": (
                "by {:.2f} decades of ambiguous and {:.2f} of confident ones".format(*at_20),
                "at 40% by {:.2f} and {:.2f}".format(*at_40),
            ),
        }
    )


def correlations(of_rate):
    """The correlations, over methods, of log tr J^T J, log uncertainty and the share that is memorized."""
    logs = np.log10(of_rate[["jacobian_trace_observed_mean", "uncertainty_observed_mean"]])
    return np.corrcoef([*logs.to_numpy().T, of_rate["memorized_mean"]])


def shared_of(of_rate):
    return correlations(of_rate)[0, 1]


def given_uncertainty(of_rate):
    """The partial correlation of tr J^T J with what is memorized, by the inverse of the correlations."""
    inverse = np.linalg.inv(correlations(of_rate))
    return -inverse[0, 2] / np.sqrt(inverse[0, 0] * inverse[2, 2])


def test_what_is_said_of_early_traces_and_equal_uncertainty_is_in_the_table():
    verdicts = effects_of("early-fisher")
    assert set(verdicts["claim_verdict"]) == {"inconclusive"}
    assert verdicts.loc[verdicts["claim"] == "E7", "not_converged"].max() == 1
    within, memorized, accuracy = (
        " over methods, within noise rate",
        "wrong labels memorized",
        "clean test accuracy, last epoch",
    )
    trace = "trace of the Hessian, observed labels, at the end of the first tenth of the epochs"
    loss = "training loss, mean over the first tenth of the epochs"
    jacobian, unsure = "tr J^T J, observed labels", "uncertainty of the predictions, observed labels"

    def with_interval(effect):
        row = verdicts.loc[effect]
        return f"{row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"

    results = table_named("early-fisher-results")
    shared = [shared_of(of_rate) for _, of_rate in results.groupby("noise_rate")]
    partial, without = (
        [given_uncertainty(of_rate) for _, of_rate in chosen.groupby("noise_rate")]
        for chosen in (results, results[results["method"] != "penalty on tr JJ"])
    )
    late = "best epoch's clean test accuracy less the last one's"
    of_unsure = [
        verdicts.loc[f"{unsure} with {outcome}{within} {sign} 0", "estimate"]
        for outcome, sign in ((memorized, "<"), (accuracy, ">"))
    ]
    assert_said(
        {
            "findings/explanations": (
                f"tau is {with_interval(f'{trace} with {memorized}{within} > 0')} with the wrong",
                f"memorized and {with_interval(f'{trace} with {late}{within} > 0')}",
                "p is {:.3f} and {:.3f}".format(
                    *(verdicts.loc[f"{trace} with {of}{within} > 0", "p"] for of in (memorized, late))
                ),
                f"has a tau of {verdicts.loc[f'{loss} with {memorized}{within} < 0', 'estimate']:.2f}",
                f"({with_interval(f'{trace} with {memorized}{within}, given {loss} > 0')})",
                f"({with_interval(f'{jacobian} with {memorized}{within} > 0')})",
                f"({with_interval(f'{jacobian} with {accuracy}{within} < 0')})",
                f"({of_unsure[0]:.2f} and {of_unsure[1]:.2f})",
                "correlate at {:.2f} at 20% and {:.2f} at 40%".format(*shared),
                "is {:.2f} at 20% and {:.2f} at 40%; with it, {:.2f} and {:.2f}".format(*without, *partial),
            )
        }
    )
