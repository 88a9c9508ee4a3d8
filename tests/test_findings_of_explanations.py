"""What the pages of findings say of wrong labels sample by sample, of critical steps and of the edge of stability."""

import pytest

from tests.doc_pages import assert_said, table_named

AREA = "chance that a wrong label has a larger {} than a right one{}, less 1/2, {} > 0"
REACH = (
    "step along the observed labels' gradient until the loss with true labels rises, by that until the loss with "
    "observed ones does, less 1"
)
EDGE = "top eigenvalue, observed labels, to the method's edge of stability"
CURVATURE, TRACE = "curvature in the input", "Gauss-Newton trace"


@pytest.fixture(scope="module")
def effects():
    return table_named("explanations-verdicts").set_index("effect")


def with_interval(row, times=1.0, digits=2):
    low, middle, high = (times * row[name] for name in ("low", "estimate", "high"))
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def test_what_is_said_of_single_samples_is_in_the_table(effects):
    claim = effects[effects["claim"] == "E4"]
    assert set(claim["claim_verdict"]) == {"inconclusive"}

    def area(words, equal="", method="SGD"):
        return effects.loc[AREA.format(words, equal, method)]

    over_all = area(CURVATURE)["estimate"], area("loss")["estimate"]
    at_equal = area(TRACE, " of equal loss")
    assert area(CURVATURE)["verdict"] == "supported"
    assert at_equal["verdict"] == "inconclusive"
    assert_said(
        {
            "findings/explanations": (
                "in {:.0f}% of pairs, where the loss does in {:.0f}%".format(
                    *(50 + 100 * x for x in over_all)
                ),
                f"chance less 1/2 is {with_interval(area(CURVATURE, ' of equal loss'), digits=3)}",
                f"the chance is {with_interval(at_equal, digits=3)} above 1/2",
                f"leaves open (p is {at_equal['p']:.3f})",
            )
        }
    )


def test_what_is_said_of_critical_steps_is_in_the_tables(effects):
    claim = effects[effects["claim"] == "E5"]
    assert set(claim["claim_verdict"]) == {"inconclusive"}
    runs = table_named("critical-steps").groupby("method")["reach"]
    early, late, count = (runs.agg(rule) for rule in (at_once, longer, "count"))
    assert_said(
        {
            "findings/explanations": (
                f"SGD's mean is {with_interval(effects.loc[f'{REACH}, SGD < 0'])}",
                f"in {early['SGD']} of SGD's {count['SGD']} runs and in {early['SAM']} of SAM's {count['SAM']}",
                f"in {late['SGD']} of SGD's runs and in {late['SAM']} of SAM's the loss with true labels",
                f"up to {1 + runs.max()['SGD']:.0f} times as long",
            )
        }
    )


def at_once(reach):
    """The runs in which the loss with true labels rises within a hundredth of the step."""
    return int((reach < -0.99).sum())


def longer(reach):
    return int((reach > 0).sum())


def test_what_is_said_of_the_edge_of_stability_is_in_the_table(effects):
    claim = effects[effects["claim"] == "E6"]
    assert set(claim["claim_verdict"]) == {"supported"}
    sgd, sam = (effects.loc[f"{EDGE}, {method} < 0"] for method in ("SGD", "SAM"))
    growth = effects.loc[f"{EDGE} against noise rate, SGD > 0"]
    assert growth["verdict"] == "inconclusive"
    assert_said(
        {
            "findings/explanations": (
                f"SGD's by {with_interval(-sgd[['estimate', 'low', 'high']].rename(SWAPPED))} decades",
                f"SAM's by {with_interval(-sam[['estimate', 'low', 'high']].rename(SWAPPED))} decades below its own",
                f"{with_interval(growth).replace(' [', ' decades per 100% wrong labels [')}",
            ),
        }
    )


SWAPPED = {"low": "high", "high": "low"}
"""The ends of an interval, for the negative."""
