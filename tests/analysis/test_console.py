"""Results and verdicts on a terminal: what is shown at which width, in words and units."""

import io
import math
import re

import pytest
from rich.console import Console

from analysis import store
from analysis.claims import CLAIMS, chosen_claims, judge
from analysis.claims.wording import p_value
from analysis.report.details import print_claims, print_details
from analysis.report.results import print_results
from analysis.report.summary import print_verdicts
from analysis.statistics import information, resampling

NUMBER = r"[+-]?\d+(?:\.\d+)?(?:e[+-]\d+)?"
WIDTHS = (60, 80, 120)


@pytest.fixture(scope="module")
def results(finished):
    """The table of the small study, and its verdicts."""
    table = store.read_table(finished[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "PERMUTATIONS", 999)
        patch.setattr(information, "PERMUTATIONS", 199)
        return table, judge(table)


def printed(show, width):
    file = io.StringIO()
    show(Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_each_judged_claim_is_one_line_with_its_number_and_unit(width, results):
    lines = printed(lambda console: print_verdicts(results[1], console), width).splitlines()
    for claim in ("M1", "M3", "L1", "G2"):
        (line,) = [line for line in lines if line.startswith(claim)]
        # the number behind the dot tells which of the claim's predictions has these numbers
        # values without any spread have no interval
        assert re.match(rf"{claim}\.\d\s+[a-z]+\*?( \d/\d)?\s+[+-]\S+( \[\S+, \S+\])? [a-z]", line)
        assert len(line) <= width
        # what is cut is the prediction in words, never a number or a unit
        assert re.search(r" (cosine|share|decades)(/100%)?$" if width < 80 else r" (< )?\d\.\d{3}( |$)", line)
    assert len(lines) < 24
    in_words = (
        " cosine of g_clean and g_noise" if width == 120 else ".1: prediction 1 of the claim; in words:"
    )
    assert in_words in " ".join(lines)
    (unmeasured,) = [line for line in lines if line.startswith("not measured: ")]
    assert "T1 T2 T3" in unmeasured


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "show",
    [
        lambda results, console: print_results(results[0], console),
        lambda results, console: print_details(results[1], console),
        lambda results, console: print_details(results[1], console, with_unmeasured=True),
        lambda _, console: print_claims(CLAIMS.values(), console),
    ],
    ids=["results", "details", "details of all claims", "list of claims"],
)
def test_tables_and_details_fit_the_terminal(show, width, results):
    lines = printed(lambda console: show(results, console), width).splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_names_the_columns_that_it_leaves_out(results):
    narrow, wide = (
        " ".join(printed(lambda console: print_results(results[0], console), width).split())
        for width in (60, 160)
    )
    left_out = "A wider terminal shows also: accuracy, best epoch, %; chosen settings."
    assert left_out in narrow
    assert "A wider terminal" not in wide
    for unit in ("nat", "%"):
        assert unit in wide


def test_details_are_one_block_a_judged_claim(results):
    blocks = printed(lambda console: print_details(results[1], console), 120).split("\n\n")
    by_claim = {block.split()[0]: block for block in blocks}
    unmeasured = blocks[-1].splitlines()[-1].removeprefix("not measured: ").split()
    assert {"T1", "T2", "T3"} <= set(unmeasured)
    assert {*unmeasured, *by_claim} == {*CLAIMS, "p:"}
    numbers = re.search(
        rf"M1.1 cosine of g_clean and g_noise, SGD < 0: [a-z]+\*?, ({NUMBER}) \[({NUMBER}), ({NUMBER})\] cosine, "
        r"p (= 0\.\d{3}|< 0\.001|= 1\.000) \(2 seeds in cells\)",
        " ".join(by_claim["M1"].split()),
    )
    estimate, low, high = map(float, numbers.groups()[:3])
    assert low < estimate < high
    assert "decides. About this 1 cell" in by_claim["M1"]
    assert "control  cosine of g_clean and g_noise, NCSAM < 0" in by_claim["M1"]


def test_a_claim_that_is_not_measured_says_what_it_needs_if_asked_for_alone(results):
    (theory,) = [judgement for judgement in results[1] if judgement.claim.id == "T1"]
    words = printed(lambda console: print_details([theory], console, with_unmeasured=True), 80)
    assert "not measured, needs the bound of Theorem 1" in " ".join(words.split())


@pytest.mark.parametrize(
    ("p", "says"),
    [
        (0.03149, "0.031"),
        (0.001, "0.001"),
        (0.00099, "< 0.001"),
        (0.0, "< 0.001"),
        (1.0, "1.000"),
        (math.nan, "–"),
    ],
)
def test_a_p_value_is_never_printed_as_zero(p, says):
    assert p_value(p) == says


def test_claims_of_a_family_follow_their_numbers():
    for family in {claim.family for claim in CLAIMS.values()}:
        ids = [claim.id for claim in CLAIMS.values() if claim.family == family]
        assert ids == sorted(ids, key=lambda name: int(name[1:]))
    assert [claim.id for claim in chosen_claims(["f3", "M1", "F1", "F2"])] == ["M1", "F1", "F2", "F3"]


def test_the_list_of_claims_marks_those_that_were_changed_after_results_were_seen_and_the_page_names_them(
    pytestconfig,
):
    shown = printed(lambda console: print_claims(CLAIMS.values(), console), 300)
    assert "What each claim predicts\n" in shown
    changed = {name: claim.changed for name, claim in CLAIMS.items() if claim.changed}
    # docs/findings tell of these
    assert set(changed) == {"A1", "E2", "E7", "E13", "E14", "F4", "F5", "L4", "T3"}
    page = (pytestconfig.rootpath / "docs/claims.md").read_text()
    assert dict(re.findall(r"^\| ([A-Z]\d+) \| (.+) \|$", page, flags=re.M)) == changed
    blocks = {block.split()[0]: block for block in shown.split("\n\n")}
    for name, block in blocks.items():
        assert ("\nchanged  " in block) == (name in changed) or name == "What", name
