"""Runs that are missing, diverged, did not converge or were not measured."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from analysis.claims.effect import (
    INCONCLUSIVE,
    NOT_MEASURED,
    SUPPORTED_HERE,
    VACUOUS,
)
from analysis.claims.wording import conclusion
from tests.analysis.synthetic_study import judged, table

pytestmark = pytest.mark.usefixtures("quick_judgements")


def test_missing_methods_are_named():
    found = judged(table().query("method in ['SGD', 'SAM']"), "M2", "M3", "G1", "H1")
    assert found["M2"].verdict == SUPPORTED_HERE
    assert found["M3"].verdict == NOT_MEASURED
    assert (found["G1"].verdict, found["G1"].measured) == (INCONCLUSIVE, "1 of 2 measured")
    assert found["G1"].conclusions[0] == "Not measured: needs runs of NCSAM."


@pytest.mark.parametrize(
    ("claim", "columns", "needs"),
    [
        ("M1", "mean_cos_", "training.alignment_batches above 0"),
        ("H1", "mean_probe_", "training.probe_epochs"),
        ("T1", "bound_", "the bound of Theorem 1"),
    ],
)
def test_measurements_that_are_not_there_are_asked_for(claim, columns, needs):
    runs = table()
    lacking = runs.drop(columns=[name for name in runs if name.startswith(columns)])
    assert needs in " ".join(judged(lacking, claim)[claim].conclusions)


def test_holes_in_the_grid_are_named_and_the_rest_is_judged():
    runs = table().query("not (method == 'NCSAM' and noise_rate == 0.4 and seed in [1, 2])")
    judgement = judged(runs, "G1")["G1"]
    assert judgement.missing == ["NCSAM, d, symmetric 40%, seed 1, 2: no run"]
    assert judgement.effects[0].samples == 16
    assert judgement.verdict == SUPPORTED_HERE
    assert "Holds for the 16 pairs that are there" in judgement.conclusions[0]


def test_a_diverged_run_forbids_a_verdict_and_says_what_is_left():
    runs = table()
    broken = (runs["method"] == "NCSAM") & (runs["noise_rate"] == 0.6) & (runs["seed"] == 3)
    runs.loc[broken, ["test_accuracy", "diverged"]] = [np.nan, True]
    judgement = judged(runs, "G1")["G1"]
    assert judgement.verdict == INCONCLUSIVE
    assert judgement.missing == ["NCSAM, d, symmetric 60%, seed 3: diverged"]
    assert "the 17 left would say: supported in these cells" in judgement.conclusions[0]


@pytest.mark.parametrize(
    ("claim", "methods", "named"),
    [
        # what is measured along the training stays finite in a run that diverges at its end
        ("M1", ["SGD"], "SGD, d, symmetric 60%, seed 3: diverged"),
        ("M3", ["NCSAM"], "NCSAM, d, symmetric 60%, seed 3: diverged"),
        ("T1", ["SAM"], "SAM, d, symmetric 60%, seed 3: diverged"),
        ("A1", ["flip 0.3"], "flip 0.3, d, symmetric 60%, seed 3: diverged"),
        ("A3", ["kappa 0.2"], "kappa 0.2, d, symmetric 60%, seed 3: diverged"),
    ],
)
def test_a_diverged_run_is_lost_and_named_by_every_kind_of_comparison(claim, methods, named):
    runs = table(seeds=7)
    broken = runs["method"].isin(methods) & (runs["noise_rate"] == 0.6) & (runs["seed"] == 3)
    judgement = judged(runs.assign(diverged=broken), claim)[claim]
    assert judgement.verdict == INCONCLUSIVE
    assert named in judgement.missing


def test_what_another_study_did_not_measure_is_not_lost_but_named():
    runs = table(seeds=7).assign(study="one")
    columns = [name for name in runs if name.startswith(("mean_cos", "mean_draw", "mean_temp", "bound_"))]
    without = table(seed=1).assign(
        study="two", seed=lambda t: t["seed"] + 100, **dict.fromkeys(columns, np.nan)
    )
    both = pd.concat([runs, without[without["method"].isin(["SGD", "SAM", "NCSAM"])]])
    names = ("M1", "M2", "M3", "M4", "T1", "A1")
    alone = judged(runs, *names)
    for name, judgement in judged(both, *names).items():
        assert judgement.verdict == (VACUOUS if name == "T1" else SUPPORTED_HERE)
        for found, expected in zip(judgement.effects, alone[name].effects, strict=True):
            np.testing.assert_equal(asdict(replace(found, coverage=expected.coverage)), asdict(expected))
            lacks = name != "A1"
            assert ("d, symmetric: not measured by this study" in found.missing) == lacks
            assert ("the grid has 1 part more" in conclusion(found)) >= lacks


NOTHING_IN = {
    "a data set": {"dataset": "e"},
    "a kind of noise": {"noise_kind": "pair"},
}


@pytest.mark.parametrize("what", NOTHING_IN)
@pytest.mark.parametrize("diverged", [[], ["SAM"]], ids=["none diverged", "SAM diverged"])
def test_a_part_of_a_study_without_values_withholds_its_verdict(what, diverged):
    runs = table()
    other = table(seed=1).assign(**NOTHING_IN[what], test_accuracy=np.nan)
    other["diverged"] = other["method"].isin(diverged)
    both = pd.concat([runs, other], ignore_index=True)
    for study in (both, both.assign(study=1)):
        effect = judged(study, "G1")["G1"].effects[0]
        assert (effect.verdict, effect.lost) == (INCONCLUSIVE, 18)
        assert any(text.endswith("not measured") for text in effect.missing)


def test_a_study_whose_runs_never_fit_is_lost_where_one_that_did_not_look_is_left_out():
    runs = table().assign(study="one", memorized_at_fit=lambda t: t["memorized"], early_fitted=0.9)
    for fitted, lost in ((0.1, 18), (np.nan, 0)):
        other = table(seed=1).assign(study="two", dataset="e", memorized_at_fit=np.nan, early_fitted=fitted)
        both = pd.concat([runs, other], ignore_index=True)
        effect = next(
            e for e in judged(both, "E8")["E8"].effects if e.name.startswith("wrong labels memorized when")
        )
        assert effect.lost == lost
        assert ("e, symmetric: not measured by this study" in effect.missing) == (lost == 0)


SHARPNESS = ["sharpness_observed", "sharpness_clean"]


def test_sharpness_without_a_flag_is_refused_and_the_remedy_named():
    runs = table().drop(columns=[f"{name}_converged" for name in SHARPNESS])
    judgement = judged(runs, "L2")["L2"]
    assert judgement.verdict == NOT_MEASURED
    for effect in judgement.effects:
        assert "not converged (measured before version 0.2): run ncsam measure" in conclusion(effect)
    # what does not rest on sharpness is judged
    assert [e.verdict for e in judged(runs, "L1")["L1"].effects] == [
        SUPPORTED_HERE,
        NOT_MEASURED,
        SUPPORTED_HERE,
        NOT_MEASURED,
    ]


@pytest.mark.parametrize("flag", [False, 0.0, np.nan])
def test_a_single_value_that_did_not_converge_is_not_used_and_counted(flag):
    runs = table()
    one = (runs["method"] == "SAM") & (runs["noise_rate"] == 0.4) & (runs["seed"] == 1)
    runs["sharpness_observed_converged"] = runs["sharpness_observed_converged"].astype(float).mask(one, flag)
    runs.loc[one, "sharpness_observed"] = 1e6
    effect = judged(runs, "L2")["L2"].effects[0]
    assert effect.verdict == INCONCLUSIVE
    assert (effect.lost, effect.coverage.not_converged, effect.coverage.runs) == (1, 1, 36)
    assert "SAM, d, symmetric 40%, seed 1: not converged" in effect.missing
    assert "1 of 36 runs not converged" in conclusion(effect)
    assert effect.estimate == pytest.approx(judged(table(), "L2")["L2"].effects[0].estimate, rel=0.1)


@pytest.mark.parametrize("name", ["top_eigenvalue_observed_converged", "top_eigenvalue_converged_observed"])
def test_every_measure_may_have_a_flag(name):
    runs = table().assign(**{name: 0.0})
    first, *_ = judged(runs, "L1")["L1"].effects
    assert first.needs == "values that converged; 360 of 360 runs not converged"


def test_a_study_without_flags_beside_one_with_flags_is_left_out_and_one_that_did_not_converge_is_not():
    new, old = table().assign(study="new"), table(seed=1).assign(study="old")
    flags = [f"{name}_converged" for name in SHARPNESS]
    expected = judged(new, "L2")["L2"]
    for flag, verdict_of_both in ((np.nan, SUPPORTED_HERE), (0.0, INCONCLUSIVE)):
        both = pd.concat([new, old.assign(seed=old["seed"] + 100, **dict.fromkeys(flags, flag))])
        found = judged(both, "L2")["L2"]
        assert found.verdict == verdict_of_both
        assert found.effects[0].estimate == pytest.approx(expected.effects[0].estimate)
