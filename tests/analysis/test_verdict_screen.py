"""The screen of verdicts: own claims first, what is compared uncut, and why an answer is open."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from analysis.claims import CLAIMS, SAM, SGD, Claim, Difference, chosen_claims, judge, register
from analysis.report.summary import FOUND_BY_SEEDS, print_verdicts
from tests.analysis.own_study import forgotten_at_the_end
from tests.analysis.synthetic_study import table

pytestmark = pytest.mark.usefixtures("quick_judgements")


def screen(claims, runs, width=300):
    file = io.StringIO()
    print_verdicts(judge(runs, claims), Console(file=file, width=width))
    return file.getvalue().splitlines()


def about(column):
    return Claim("X1", "statement", "place", [Difference(column, SAM, SGD, 1)])


def with_luck(seeds):
    """Runs with a number that says nothing of the methods."""
    runs = table(seeds=seeds)
    return runs.assign(luck=np.random.default_rng(0).normal(size=len(runs)))


def test_own_claims_come_first_and_are_set_apart():
    with forgotten_at_the_end():
        register(about("test_loss"))
        chosen = chosen_claims(["G1", "x1"])
    assert [claim.id for claim in chosen] == ["X1", "G1"]
    _, own, apart, built_in, *_ = screen(chosen, table(seeds=4))
    assert own.startswith("X1 ")
    assert apart == "claims that come with ncsam:"
    assert built_in.startswith("G1")


def test_claims_of_one_kind_are_not_set_apart():
    lines = screen([CLAIMS["G1"]], table(seeds=4))
    assert not any("come with ncsam" in line for line in lines)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_open_answer_with_few_seeds_says_so(seeds):
    lines = screen([about("luck")], with_luck(seeds))
    assert lines[1].split()[1] == "inconclusive"
    said = [line for line in lines if line.startswith("few seeds: X1 may be open for want of them")]
    assert len(said) == (seeds <= 3)
    assert all(f"with {seeds} in each cell" in line for line in said)


def test_an_open_answer_for_want_of_runs_does_not_blame_seeds():
    runs = with_luck(3)
    lost = (runs["method"] == "SAM") & (runs["seed"] == 0)
    runs["luck"] = runs["luck"].where(~lost, math.nan)
    assert not any("few seeds" in line for line in screen([about("luck")], runs))


def test_a_claim_that_is_open_because_a_prediction_was_not_measured_does_not_blame_seeds():
    both = [Difference("test_accuracy", SAM, SGD, 1), Difference("absent", SAM, SGD, 1)]
    runs = table(seeds=3).assign(absent=math.nan)
    lines = screen([Claim("X1", "statement", "place", both)], runs)
    assert lines[1].split()[1] == "inconclusive"
    assert not any("few seeds" in line for line in lines)


def test_the_power_by_seeds_is_the_documented_one(pytestconfig):
    page = " ".join((pytestconfig.rootpath / "docs/verdict-errors.md").read_text().split())
    two, three, five, eight = FOUND_BY_SEEDS.values()
    assert f"in {eight} with 8 seeds in each cell, {five} with 5, {three} with 3, and {two} with 2" in page
    page = " ".join((pytestconfig.rootpath / "docs/claims.md").read_text().split())
    assert f"in {two} with 2 seeds, {three} with 3, {five} with 5 and {eight} with 8" in page


def test_a_prediction_that_is_too_long_loses_words_of_its_quantity_and_not_what_is_compared():
    (line,) = (
        line for line in screen([about("test_accuracy")], table(seeds=4), 100) if line.startswith("X1")
    )
    assert line.endswith("…: SAM less SGD > 0")
    assert len(line) <= 100
