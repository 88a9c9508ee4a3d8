"""What the pages say of claim E14, of equally unsure networks and of those with equal tr J^T J, is in the tables."""

import pandas as pd
import pytest

from analysis.claims.variants import EQUALLY_STEEP, EQUALLY_UNSURE, JACOBIAN_PENALTY, SGD
from bench.equally_unsure import cells_of, differences, picture, runs_with_more
from bench.findings import RUNS, Judged
from tests.doc_pages import assert_said, rows_marked, table_named

FLAT = "penalty on tr J^T J"
UNSURE, STEEP = "penalty on confidence, equally unsure", "penalty on confidence, equal tr J^T J"
MEMORIZED, ACCURACY, TRACE = (
    "wrong labels memorized",
    "clean test accuracy, last epoch",
    "tr J^T J, observed labels",
)


@pytest.fixture(scope="module")
def effects():
    return table_named("equally-unsure-verdicts").set_index("effect")


@pytest.fixture(scope="module")
def runs():
    return runs_with_more(Judged.of_file(RUNS / "equally-unsure.csv").runs)


def told(row, times, digits, unit):
    """Such as "36.3 points" and "[35.4, 37.1]", of the effect's size."""
    low, middle, high = sorted(abs(times * row[name]) for name in ("low", "estimate", "high"))
    return f"{middle:.{digits}f} {unit}", f"[{low:.{digits}f}, {high:.{digits}f}]"


def points(row):
    return told(row, 100, 1, "points")


def size(runs, first, second, column, *, decades=True):
    return abs(differences(runs, first, second, column, decades=decades).mean())


def test_what_is_said_of_equally_unsure_networks(effects):
    assert set(effects["claim_verdict"]) == {"supported in these cells"}
    memorized = points(effects.loc[f"{MEMORIZED}: {FLAT} less {UNSURE} < 0"])
    accuracy = points(effects.loc[f"{ACCURACY}: {FLAT} less {UNSURE} > 0"])
    trace, _ = told(effects.loc[f"{TRACE}: {FLAT} less {UNSURE} < 0"], 1, 2, "decades")
    assert_said(
        {
            "findings/explanations": (
                f"{memorized[0]} fewer wrong labels are memorized {memorized[1]} than in the equally unsure network",
                f"the network is {accuracy[0]} more accurate {accuracy[1]}",
            ),
            "answer": (
                f"has a tr JᵀJ {trace} lower, memorizes {memorized[0]} fewer wrong labels",
                f"fewer wrong labels and is {accuracy[0]} more accurate (E14, 30 pairs:",
                f"tr JᵀJ -{trace}, wrong labels memorized -{memorized[0]}, accuracy +{accuracy[0]} | E14, 30 pairs",
            ),
            "../README": (
                f"{memorized[0]} fewer wrong labels are memorized than with a penalty on confidence",
            ),
        }
    )


def test_what_is_said_of_single_cells(runs):
    memorized, accuracy, unsure = (
        differences(runs, JACOBIAN_PENALTY, EQUALLY_UNSURE, name, decades=decades)
        for name, decades in (("memorized", False), ("test_accuracy", False), ("uncertainty_observed", True))
    )
    of_data = -100 * memorized.groupby("dataset").mean()
    digits, garments = of_data["mnist-5k"], of_data["fashion-mnist"]
    assert_said(
        {
            "findings/explanations": (
                f"{digits:.0f} points fewer on digits and {garments:.0f} on garments",
                f"accuracy is {100 * accuracy.min():.1f} to {100 * accuracy.max():.1f} points higher",
                f"differ by at most {unsure.abs().max():.2f} decades in any cell",
            ),
            "answer": (f"{digits:.0f} points fewer on digits, {garments:.0f} on garments",),
        }
    )
    for _, of_rate in accuracy.groupby("dataset"):
        assert of_rate.is_monotonic_increasing


def test_what_is_said_of_flatness_and_of_what_was_learned(runs):
    pair = runs, JACOBIAN_PENALTY, EQUALLY_UNSURE
    flatter = [
        size(*pair, name)
        for name in (
            *("jacobian_trace_observed", "scaled_trace", "top_eigenvalue_observed", "sharpness_observed"),
            *("sharpness_elementwise_observed", "sharpness_elementwise_clean"),
        )
    ]
    right, recovered, best = (
        100 * size(*pair, name, decades=False) for name in ("right_fitted", "recovered", "best_test_accuracy")
    )
    assert_said(
        {
            "findings/explanations": (
                "{:.2f} decades by tr JᵀJ, {:.2f} scaled, {:.2f} by the top eigenvalue, {:.2f} by sharpness, {:.2f} by "
                "relative sharpness with observed labels and {:.2f} with true ones".format(*flatter),
                f"fits {right:.1f} points fewer right labels",
                f"gives {recovered:.0f} points more of the wrongly labeled samples",
                f"accuracy differs by {best:.1f} points",
            )
        }
    )


def test_what_is_said_of_the_penalty_on_confidence(effects, runs):
    alone = points(effects.loc[f"{MEMORIZED}: {UNSURE} less SGD < 0"])
    of_steep = effects.loc[[f"{MEMORIZED}: {STEEP} less {FLAT} < 0", f"{ACCURACY}: {STEEP} less {FLAT} > 0"]]
    assert set(of_steep["verdict"]) == {"contradicted in these cells"}
    memorized, accuracy = (points(row) for _, row in of_steep.iterrows())
    less_than_sgd = [
        100 * size(runs, variant, SGD, "memorized", decades=False)
        for variant in (EQUALLY_STEEP, JACOBIAN_PENALTY)
    ]
    scaled = size(runs, EQUALLY_STEEP, JACOBIAN_PENALTY, "scaled_trace")
    as_sgd = differences(runs, EQUALLY_UNSURE, SGD, "scaled_trace", decades=True).mean()
    assert_said(
        {
            "findings/explanations": (
                f"memorizes {alone[0]} fewer wrong labels than SGD {alone[1]}",
                "these are {:.1f} points, with nearly uniform predictions; with the penalty on tr JᵀJ they are "
                "{:.1f}".format(*less_than_sgd),
                f"by {memorized[0]} {memorized[1]}, and is {accuracy[0]} less accurate {accuracy[1]}",
                f"Scaled, that network is {scaled:.2f} decades steeper",
                f"as steep as SGD ({as_sgd:+.2f})",
            ),
            "answer": (
                f"less sure, and {memorized[0]} more wrong labels are memorized (E14, control)",
                f"wrong labels memorized +{memorized[0]}, accuracy -{accuracy[0]} | E14 (control), 30 pairs",
            ),
        }
    )


def test_the_page_has_the_means_of_the_committed_runs(runs):
    committed = table_named("equally-unsure-cells")
    found = cells_of(runs).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, committed, rtol=1e-3, check_dtype=False)
    shares = ["memorized", "test_accuracy", "best_test_accuracy", "right_fitted"]
    shown = [
        " | ".join(
            [
                f"| {row['dataset']} | {row['noise_rate']:.0%} | {row['network']}",
                *(f"{100 * row[name]:.1f}" for name in shares),
                *(f"{value:.3g}" for value in row.iloc[3 + len(shares) :]),
            ]
        )
        + " |"
        for _, row in committed.iterrows()
    ]
    assert rows_marked("equally-unsure-cells")[2:] == shown


def test_the_picture_is_drawn_from_the_committed_runs(runs):
    figure = picture(runs)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == 2 * ["20% wrong labels", "40% wrong labels", "60% wrong labels"]
    # SGD with six strengths of the penalty on confidence, the penalty on tr J^T J, and SGD
    assert [len(drawn.lines[0].get_xdata()) for drawn in figure.axes[0].containers] == [7, 1, 1]
