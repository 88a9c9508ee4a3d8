"""Every number of the tables in the pages of findings and of README's findings is that of a committed table."""

import re

import pandas as pd
import pytest

from bench.findings import overview
from tests.doc_pages import (
    assert_said,
    page_named,
    redrawn_less_fixed,
    rows_marked,
    sentences_of,
    table_named,
)

STUDIES = (
    *("quick", "redrawn", "redrawn-cnn", "redrawn-resnet", "redrawn-resnet20"),
    *("along", "sam-by-part", "trace-penalty"),
)
JUDGED = (
    "theory",
    "along-fixed",
    "redrawn-cells",
    "static-cells",
    "explanations",
    "early-noise",
    "spectra",
    "flatness",
    "landscapes",
    "widths",
    "regularizers",
    "alarms",
    "at-uncertainty",
    "damping",
    *("early-fisher", "equally-unsure"),
)
"""Studies of whose results the page has the verdicts alone."""
OF_ACCURACY = ("word-languages", "human-labels", "mechanism", "ablations", "sam-controls")
"""Studies that measure no landscape."""


def verdict_row(row):
    """A row of `docs/tables/*-verdicts.csv` as the page has it."""
    if row["verdict"] == "not measured":
        return None
    interval = f"{row['estimate']:+.3g}"
    if pd.notna(row["low"]):
        interval += f" [{row['low']:+.3g}, {row['high']:+.3g}]"
    unit = f" {row['unit']}" if isinstance(row["unit"], str) else ""
    p = "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}" if pd.notna(row["p"]) else "–"
    counted = f"{row['units']} {row['counted']}"
    cells = (row["claim"], row["role"], row["effect"], interval + unit, p, counted, row["verdict"])
    return f"| {' | '.join(map(str, cells))} |"


def result_row(row):
    """A row of `docs/tables/*-results.csv` as the page has it."""
    numbers = [f"{100 * row['test_accuracy_mean']:.1f}"]
    numbers += [
        f"{row[f'{name}_mean']:.3g}"
        for name in (
            "top_eigenvalue_observed",
            "sharpness_observed",
            "sharpness_clean",
            "jacobian_trace_observed",
            "uncertainty_observed",
            "gauss_newton_trace_observed",
            "functional_norm_observed",
            "functional_norm_clean",
        )
    ]
    return f"| {row['noise_kind']} | {row['noise_rate']:.0%} | {row['method']} | {' | '.join(numbers)} |"


RENDERED = {"verdicts": verdict_row, "results": result_row}


def table(study, kind):
    return table_named(f"{study}-{kind}")


@pytest.mark.parametrize(
    ("study", "kind"),
    [
        *((study, kind) for study in STUDIES for kind in RENDERED),
        *((study, "verdicts") for study in (*JUDGED, *OF_ACCURACY)),
    ],
)
def test_the_page_has_the_rows_of_the_table_and_no_other(study, kind):
    rows = rows_marked(f"{study}-{kind}")[2:]
    expected = [row for row in map(RENDERED[kind], table(study, kind).to_dict("records")) if row]
    if kind == "verdicts":
        shown = [row for row in expected if row in rows]
        predictions = [row for row in expected if row.split(" | ")[1] == "prediction"]
        assert set(predictions) <= set(shown)
    else:
        shown = expected
    assert rows == shown


@pytest.mark.parametrize("study", OF_ACCURACY)
def test_the_page_has_the_accuracies_of_the_table(study):
    results = table(study, "results")
    shares = results.pivot_table("test_accuracy_mean", "method", "noise_rate", sort=False)
    rows = [
        f"| {' | '.join([name, *(f'{100 * share:.1f}' for share in row)])} |"
        for name, row in zip(shares.index, shares.to_numpy(), strict=True)
    ]
    header = f"| last accuracy, % | {' | '.join(f'{rate:.0%}' for rate in shares.columns)} |"
    names, _, *accuracies = rows_marked(f"{study}-results")
    assert [names, *accuracies] == [header, *rows]


def test_the_overview_has_the_verdict_of_every_claim_in_every_table():
    page = page_named("findings")
    (found,) = re.findall(r"<!-- overview -->\n(.*?)<!-- end -->", page, flags=re.S)
    assert found.splitlines()[2:] == overview()


@pytest.fixture(scope="module")
def readme(pytestconfig):
    """What the README says was found, in one line."""
    text = (pytestconfig.rootpath / "README.md").read_text()
    (found,) = re.findall(r"<!-- findings -->\n(.*?)<!-- end -->", text, flags=re.S)
    return " ".join(found.split())


def test_the_readme_says_what_was_found_in_four_points_of_at_most_two_sentences(readme):
    points = readme.removeprefix("- ").split(" - ")
    assert len(points) == 4
    assert all(point.startswith("**") and len(re.findall(r"\.(?:\*\*)? ", point)) <= 2 for point in points)


def test_the_readme_states_numbers_of_the_tables(readme):
    results = table("quick", "results").set_index(["noise_rate", "method"])
    redrawn = table("redrawn", "results").set_index(["noise_kind", "noise_rate", "method"])
    penalized = table("trace-penalty", "results").set_index(["method", "noise_rate"])["test_accuracy_mean"]
    sgd, noisy = results.loc[0.0, "SGD"], results.loc[0.6, "SGD"]
    fixed, fresh = (redrawn.loc[kind, 0.4, "SGD"] for kind in ("symmetric", "symmetric, redrawn each step"))
    for number in (
        f"from {sgd['top_eigenvalue_observed_mean']:.1f} to {noisy['top_eigenvalue_observed_mean']:.0f}",
        f"from {sgd['uncertainty_observed_mean']:.3f} to {noisy['uncertainty_observed_mean']:.2f}",
        f"from {sgd['jacobian_trace_observed_mean']:,.0f} to {noisy['jacobian_trace_observed_mean']:,.0f}",
        f"from {fixed['jacobian_trace_observed_mean']:,.0f} to {fresh['jacobian_trace_observed_mean']:.0f}",
        f"from {100 * fixed['test_accuracy_mean']:.0f}% to {100 * fresh['test_accuracy_mean']:.0f}%",
        "takes accuracy from {:.0f}% to {:.0f}%".format(
            *(100 * penalized[name, 0.4] for name in ("SGD", "penalty on tr JJ"))
        ),
    ):
        assert number in readme, number


CLAIMED = (
    # study, prediction, verdict that the sentence rests on, (factor, digits, words) of the number that it states
    (
        "quick",
        "top eigenvalue, observed labels against noise rate, SGD > 0",
        "supported in these cells",
        None,
    ),
    (
        "quick",
        "uncertainty of the predictions, observed labels against noise rate, SGD > 0",
        "supported",
        None,
    ),
    ("quick", "tr J^T J, observed labels against noise rate, SGD > 0", "inconclusive", None),
    (
        "quick",
        "clean test accuracy, last epoch: SAM less SGD > 0",
        "supported in these cells",
        "{0:.1f} points more accurate than SGD",
    ),
    (
        "quick",
        "clean test accuracy, last epoch: NCSAM less SAM > 0",
        "inconclusive",
        "({0:.1f} points [{1:+.1f}, {2:+.1f}])",
    ),
    (
        "quick",
        "sharpness, ratio of true to observed labels: SAM less SGD > 0",
        "inconclusive",
        "({3:.3f} decades [{4:.3f}, {5:+.3f}], inconclusive)",
    ),
)


@pytest.mark.parametrize(("study", "effect", "verdict", "words"), CLAIMED)
def test_the_readmes_sentences_rest_on_verdicts_of_the_tables(readme, study, effect, verdict, words):
    # of an effect of several claims the first one's row, whose p is corrected over the claims of its letter
    verdicts = table(study, "verdicts").drop_duplicates("effect").set_index("effect")
    row = verdicts.loc[effect]
    assert row["verdict"].startswith(verdict)
    if words:
        shown = words.format(
            *(100 * row[name] for name in ("estimate", "low", "high")),
            row["estimate"],
            row["low"],
            row["high"],
        )
        assert shown in readme, shown


@pytest.mark.parametrize("study", ["redrawn", "redrawn-cnn", "redrawn-resnet"])
def test_redrawn_labels_stand_supported(study):
    verdicts = table(study, "verdicts")
    assert set(verdicts.loc[verdicts["claim"] == "F1", "claim_verdict"]) == {"supported in these cells"}


def test_what_is_said_of_the_cnn_is_in_its_table():
    page = sentences_of("findings/redrawn-labels")
    results = table("redrawn-cnn", "results").set_index(["noise_kind", "noise_rate", "method"])
    of_mlp = table("redrawn", "results").set_index(["noise_kind", "noise_rate", "method"])
    clean, fixed = (results.loc[("symmetric", rate, "SGD")] for rate in (0.0, 0.4))
    fresh = results.loc[("symmetric, redrawn each step", 0.4, "SGD")]
    jacobian, sharpness, accuracy = redrawn_less_fixed(
        "redrawn-cnn",
        "tr J^T J, observed labels",
        "sharpness elementwise, true labels",
        "clean test accuracy, last epoch",
    )
    with_sam = (
        table("redrawn-cnn", "verdicts")
        .set_index("effect")
        .loc["clean test accuracy, last epoch, SAM: redrawn labels less fixed ones > 0"]
    )
    points = [100 * with_sam[name] for name in ("estimate", "low", "high")]
    traces = [f"{run['jacobian_trace_observed_mean']:,.0f}" for run in (fixed, clean)]
    for words in (
        f"{-jacobian:.2f} decades below that of fixed",
        f"{-sharpness:.2f} decades below, and",
        f"{100 * accuracy:.0f} points higher",
        "inconclusive ({:+.0f} points [{:+.0f}, {:+.0f}], 4 pairs)".format(*points),
        f"nearly as unsure ({fixed['uncertainty_observed_mean']:.2f})",
        f"redrawn labels ({fresh['uncertainty_observed_mean']:.2f})",
        f"memorized {fixed['memorized_mean']:.0%} of the wrong labels",
        f"MLP {of_mlp.loc[('symmetric', 0.4, 'SGD'), 'memorized_mean']:.0%} of them",
        f"tr JᵀJ is {traces[0]} at 40% and {traces[1]} without",
    ):
        assert words in page, words


def test_what_is_said_of_the_resnet_is_in_its_table():
    page = sentences_of("findings/redrawn-labels")
    results = table("redrawn-resnet", "results").set_index(["noise_kind", "noise_rate"])
    clean, fixed = (results.loc[("symmetric", rate)] for rate in (0.0, 0.4))
    fresh = results.loc[("symmetric, redrawn each step", 0.4)]
    jacobian, sharpness, accuracy, eigenvalue, gauss_newton, functional = redrawn_less_fixed(
        "redrawn-resnet",
        "tr J^T J, observed labels",
        "sharpness elementwise, true labels",
        "clean test accuracy, last epoch",
        "top eigenvalue, observed labels",
        "trace of the Gauss-Newton matrix, observed labels",
        "norm of the functional Hessian, observed labels",
    )
    shares = [f"{100 * run['test_accuracy_mean']:.0f}%" for run in (fresh, fixed)]
    traces = [f"{run['jacobian_trace_observed_mean']:,.0f}" for run in (fixed, clean)]
    unsure = [run["uncertainty_observed_mean"] for run in (fixed, fresh)]
    for words in (
        f"a tr JᵀJ {-jacobian:.2f} decades below that of fixed ones, relative sharpness {-sharpness:.2f} decades "
        f"below, and an accuracy {100 * accuracy:.0f} points higher ({shares[0]} and {shares[1]};",
        f"{eigenvalue:.2f} decades *higher*, the Gauss-Newton trace {gauss_newton:.2f}, the functional norm "
        f"{functional:.2f}",
        f"wrong label that stays ({fixed['memorized_mean']:.0%})",
        f"(uncertainty {unsure[0]:.3f} against {unsure[1]:.2f})",
        f"by a factor of {10**eigenvalue:.0f}",
        f"as clean ones do: {traces[0]} and {traces[1]}",
    ):
        assert words in page, words


def equal_loss_row(row):
    """A row of `docs/tables/equal-loss.csv` as the page has it; a dash where a run does not pass the level."""
    numbers = [
        "–" if pd.isna(value) else f"{value:,.0f}"
        for name, value in row.items()
        if name not in ("noise_kind", "noise_rate")
    ]
    return f"| {row['noise_kind']} | {row['noise_rate']:.0%} | {' | '.join(numbers)} |"


def test_the_table_at_equal_training_loss_is_the_committed_one():
    rows = table_named("equal-loss").to_dict("records")
    assert rows_marked("equal-loss")[2:] == [equal_loss_row(row) for row in rows]


def test_what_is_said_at_equal_training_loss_is_in_the_tables():
    along, fixed_alone = table("along", "verdicts"), table("along-fixed", "verdicts")
    assert set(along["claim_verdict"]) == set(fixed_alone["claim_verdict"]) == {"supported in these cells"}
    effects, effects_of_fixed = along.set_index("effect"), fixed_alone.set_index("effect")
    at_loss = table_named("equal-loss").set_index(["noise_kind", "noise_rate"])
    fixed = at_loss.loc["symmetric"]
    f4, f4_highest = (
        effects.loc[
            f"tr J^T J at the {level} equal training loss, observed labels, SGD: redrawn labels less fixed ones < 0"
        ]
        for level in ("lowest", "highest")
    )
    l4, gauss_newton = (
        effects_of_fixed.loc[
            f"{measure} at the lowest equal training loss, observed labels against noise rate, SGD > 0"
        ]
        for measure in ("tr J^T J", "trace of the Gauss-Newton matrix")
    )
    not_told_apart = fixed_alone[fixed_alone["verdict"] == "inconclusive"]["effect"]
    assert len(not_told_apart) == len(fixed_alone) - 2
    last = table("redrawn", "verdicts").set_index("effect")["estimate"]
    gap = last["tr J^T J, observed labels, SGD: redrawn labels less fixed ones < 0"]
    times = {
        level: fixed.loc[0.6, f"{level} nat"] / fixed.loc[0.2, f"{level} nat"]
        for level in ("1.2", "0.8", "0.4")
    }
    whole = f"{fixed.loc[0.6, '0.4 nat'] / fixed.loc[0.0, '0.4 nat']:.1f} times"
    said = {
        "findings/redrawn-labels": (
            f"by {-f4['estimate']:.2f} decades [{-f4['high']:.2f}, {-f4['low']:.2f}] at the lowest",
            f"by {-f4_highest['estimate']:.2f} [{-f4_highest['high']:.2f}, {-f4_highest['low']:.2f}] at the highest",
            f"against {-gap:.2f} at the last epoch",
            f"{l4['estimate']:.2f} decades per 100% [{l4['low']:.2f}, {l4['high']:.2f}]",
            whole,
            f"({gauss_newton['estimate']:.2f} decades, p is {gauss_newton['p']:.3f})",
            f"{times['1.2']:.1f} times as large at 1.2 nat, {times['0.8']:.1f} times at 0.8 and "
            f"{times['0.4']:.1f} times at 0.4",
            f"{fixed.loc[0.0, 'epoch 1'] / fixed.loc[0.6, 'epoch 1']:.0f} times less",
        ),
        "answer": (
            whole,
            f"by {-f4_highest['estimate']:.2f} to {-f4['estimate']:.2f} decades, against {-gap:.2f} at the last",
        ),
    }
    assert_said(said)


def test_what_is_said_of_the_parts_of_sam_is_in_the_table():
    verdicts = table("sam-by-part", "verdicts")
    of_claims = verdicts.drop_duplicates("claim").set_index("claim")["claim_verdict"]
    assert dict(of_claims) == {"E1": "supported in these cells", "E2": "supported in these cells"}
    effects = verdicts.set_index("effect")

    def points(effect, name="estimate"):
        return 100 * effects.loc[effect, name]

    accuracy = "clean test accuracy, last epoch: "
    lost = "true labels of wrongly labeled samples recovered, best epoch's less the last one's"
    recovered = "true labels of wrongly labeled samples recovered, "
    early = f"{recovered}mean over the first tenth of the epochs, less the last one's"
    over_sgd = points(f"{accuracy}J-SAM less SGD > 0")
    j_less_sam = f"{accuracy}J-SAM less SAM = 0, within the margin"
    l_less_sgd = f"{accuracy}L-SAM less SGD = 0, within the margin"
    traces = [
        effects.loc[f"tr J^T J, observed labels: {m} less SGD < 0", "estimate"]
        for m in ("J-SAM", "SAM", "L-SAM")
    ]
    said = {
        "findings/explanations": (
            f"J-SAM is {over_sgd:.1f} points more accurate",
            f"L-SAM is {-points(f'{accuracy}L-SAM less J-SAM < 0'):.1f} points less accurate",
            f"({points(j_less_sam):+.1f} points [{points(j_less_sam, 'low'):+.1f}, {points(j_less_sam, 'high'):+.1f}])",
            f"L-SAM is {points(l_less_sgd):.1f} points more accurate than SGD "
            f"[{points(l_less_sgd, 'low'):.1f}, {points(l_less_sgd, 'high'):.1f}]",
            f"memorizes {-points('wrong labels memorized: L-SAM less SGD < 0'):.0f} points fewer",
            "J-SAM lowers tr JᵀJ by {:.2f} decades, SAM by {:.2f}, L-SAM by {:.2f}".format(
                *(-t for t in traces)
            ),
            f"their true label to {points(f'{early}, SGD > 0'):.0f} points more",
            f"SAM loses {-points(f'{lost}: SAM less SGD < 0'):.0f} points fewer",
        ),
        "answer": (
            f"gives {over_sgd:.1f} points of accuracy over SGD",
            f"there gives {points(l_less_sgd):.1f} (E1)",
            f"tr JᵀJ falls by {-traces[0]:.2f} decades",
        ),
    }
    assert_said(said)


def test_what_is_said_of_the_bound_is_in_its_table():
    verdicts = table("theory", "verdicts")
    of_claims = verdicts.drop_duplicates("claim").set_index("claim")["claim_verdict"]
    assert dict(of_claims) == {
        "T1": "vacuous",
        "T2": "supported in these cells",
        "T3": "supported in these cells",
    }
    effects = verdicts.set_index("effect")
    above = effects.loc["bound less 1, above which it says nothing, 0-1 loss < 0", "estimate"]
    order = effects.loc["bound of Theorem 1, 0-1 loss with test loss over methods, within noise rate > 0"]
    complexity = effects.loc["complexity term of the bound, 0-1 loss against noise rate, SGD > 0", "estimate"]
    page = sentences_of("findings/the-method")
    for number in (
        f"lies {above:.1f} above 1",
        f"is {order['estimate']:.2f} [{order['low']:.0f}, {order['high']:+.2f}]",
        f"by {complexity:.2f} per 100% wrong labels",
        "The sampling term grows by its formula, whatever is trained. It is a control",
    ):
        assert number in page, number
