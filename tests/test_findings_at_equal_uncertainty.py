"""What the pages say of claim E14, whether flatness protects at equal uncertainty, is in the tables."""

import pytest

from bench.equally_unsure import picture
from bench.findings import RUNS, Judged
from tests.doc_pages import assert_said, table_named

FLAT = "penalty on tr J^T J"
UNSURE, AS_FLAT = (f"penalty on confidence, equally {of}" for of in ("unsure", "flat"))
MEMORIZED, ACCURACY, TRACE, UNCERTAINTY = (
    "wrong labels memorized",
    "clean test accuracy, last epoch",
    "tr J^T J, observed labels",
    "uncertainty of the predictions, observed labels",
)


@pytest.fixture(scope="module")
def effects():
    return table_named("equally-unsure-verdicts").set_index("effect")


def told(row, times, digits, unit):
    """Such as "48.1 points" and "[46.5, 49.6]", of the effect's size."""
    low, middle, high = sorted(abs(times * row[name]) for name in ("low", "estimate", "high"))
    return f"{middle:.{digits}f} {unit}", f"[{low:.{digits}f}, {high:.{digits}f}]"


def points(row):
    return told(row, 100, 1, "points")


def decades(row):
    return told(row, 1, 2, "decades")


def test_what_is_said_of_equally_unsure_networks(effects):
    assert set(effects["claim_verdict"]) == {"supported in these cells"}
    memorized = points(effects.loc[f"{MEMORIZED}: {FLAT} less {UNSURE} < 0"])
    accuracy = points(effects.loc[f"{ACCURACY}: {FLAT} less {UNSURE} > 0"])
    trace = decades(effects.loc[f"{TRACE}: {FLAT} less {UNSURE} < 0"])
    apart = effects.loc[f"{UNCERTAINTY}: {FLAT} less {UNSURE} = 0, within the margin", "estimate"]
    assert_said(
        {
            "findings/explanations": (
                f"{memorized[0]} fewer wrong labels {memorized[1]}",
                f"it is {accuracy[0]} more accurate {accuracy[1]}",
                f"equally unsure to within {abs(apart):.3f} decades, and tr JᵀJ is {trace[0]} lower {trace[1]}",
            ),
            "answer": (
                f"tr JᵀJ {trace[0]} lower, memorizes {memorized[0]} fewer wrong labels",
                f"fewer wrong labels and is {accuracy[0]} more accurate",
                f"tr JᵀJ -{trace[0]}, wrong labels memorized -{memorized[0]}, accuracy +{accuracy[0]} | E14, 30 pairs",
            ),
            "../README": (f"memorizes {memorized[0]} fewer wrong labels (E14, supported in these cells)",),
        }
    )


def test_what_is_said_of_being_unsure_alone(effects):
    memorized = points(effects.loc[f"{MEMORIZED}: {UNSURE} less SGD < 0"])
    accuracy = points(effects.loc[f"{ACCURACY}: {UNSURE} less SGD > 0"])
    trace = decades(effects.loc[f"{TRACE}: {UNSURE} less SGD < 0"])
    assert_said(
        {
            "findings/explanations": (
                f"memorizes {memorized[0]} fewer wrong labels {memorized[1]} and is {accuracy[0]} more accurate "
                f"{accuracy[1]}",
                f"flatter than SGD too, by {trace[0]} {trace[1]}",
            ),
            "answer": (f"Being unsure does little by itself: {memorized[0]} fewer than SGD",),
        }
    )


def test_what_is_said_of_equally_flat_networks(effects):
    of_flat = effects.loc[
        [f"{MEMORIZED}: {AS_FLAT} less {FLAT} < 0", f"{ACCURACY}: {AS_FLAT} less {FLAT} > 0"]
    ]
    assert set(of_flat["verdict"]) == {"contradicted in these cells"}
    memorized, accuracy = (points(row) for _, row in of_flat.iterrows())
    unsure = decades(effects.loc[f"{UNCERTAINTY}: {AS_FLAT} less {FLAT} > 0"])
    assert_said(
        {
            "findings/explanations": (
                f"(by {unsure[0]} {unsure[1]}) memorizes {memorized[0]} *more* {memorized[1]}, and is {accuracy[0]} "
                f"less accurate {accuracy[1]}",
            ),
            "answer": (
                f"less sure and memorizes {memorized[0]} more (E14, control)",
                f"wrong labels memorized +{memorized[0]}, accuracy -{accuracy[0]} | E14 (control), 30 pairs",
            ),
        }
    )


def test_the_picture_is_drawn_from_the_committed_runs():
    figure = picture(Judged.of_file(RUNS / "equally-unsure.csv").runs)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == 2 * ["20% wrong labels", "40% wrong labels", "60% wrong labels"]
    # SGD with six strengths of the penalty on confidence, the penalty on tr J^T J, and SGD
    assert [len(drawn.lines[0].get_xdata()) for drawn in figure.axes[0].containers] == [7, 1, 1]
