"""The claims on studies with a known truth."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from analysis import claims
from analysis.claims import (
    CLAIMS,
    QUANTITIES,
    SAM,
    SGD,
    Association,
    Best,
    Claim,
    Difference,
    Information,
    Level,
    Trend,
    judge,
    read_claims,
    register,
    write_json,
)
from analysis.claims import effect as verdicts
from analysis.claims.label_mean import RedrawnLessMean
from analysis.claims.redraw import Redrawn
from analysis.claims.width import Widening
from tests.analysis.synthetic_study import LOSSES, METHODS, judged, table, verdict

PAPERS = [
    *("T1", "T2", "T3", "M1", "M2", "M3", "M4", "L1", "L2", "L3"),
    *("G1", "G2", "G3", "A1", "A2", "A3"),
]

pytestmark = pytest.mark.usefixtures("quick_judgements")


def test_a_study_in_which_the_paper_is_right_supports_each_of_its_claims_and_neither_rival():
    found = {name: judgement.verdict for name, judgement in judged(table(seeds=7)).items()}
    rivals = {"H1": verdicts.CONTRADICTED_HERE, "H2": verdicts.CONTRADICTED_HERE}
    # its bounds are above 1, so that they cannot fail
    vacuous = {"T1": verdicts.VACUOUS}
    # its labels are never redrawn, its Jacobian is not measured, and nothing is measured along its training
    unmeasured = dict.fromkeys(
        (*(f"E{number}" for number in range(1, 15)), *(f"F{number}" for number in range(1, 6)), "L4"),
        verdicts.NOT_MEASURED,
    )
    # the oracle is better than SAM, and SAM with the perturbation of rightly labeled samples is not there
    # its families are too few for an association given the training loss
    partly = {"S1": verdicts.INCONCLUSIVE, "L3": verdicts.INCONCLUSIVE}
    assert found == dict.fromkeys(PAPERS, verdicts.SUPPORTED_HERE) | vacuous | unmeasured | rivals | partly


@pytest.mark.parametrize(
    ("what", "expected"), [("dataset", verdicts.SUPPORTED), ("noise_kind", verdicts.SUPPORTED_HERE)]
)
def test_from_six_data_sets_on_verdicts_are_about_the_population_but_not_from_six_kinds_of_noise(
    what, expected
):
    tables = [table(seed=seed, seeds=3).assign(**{what: f"number {seed}"}) for seed in range(6)]
    found = {n: j.verdict for n, j in judged(pd.concat(tables), "T2", "M2", "L1", "L3", "G1").items()}
    assert found == dict.fromkeys(found, expected)


@pytest.mark.parametrize(
    ("planted", "claim"),
    [
        ({"growth": -0.3}, "L1"),
        ({"gain": -0.2}, "M3"),
        ({"gstar": -0.3}, "M3"),
        ({"quality": {"NCSAM": -0.1}}, "G1"),
        ({"quality": {"NCSAM": -0.1}}, "G2"),
        ({"quality": {"NCSAM": -0.1}}, "G3"),
        ({"quality": {"constant": 0.3}}, "A2"),
        ({"slack": -5.0}, "T1"),
        ({"gap": -0.05}, "T2"),
    ],
)
def test_a_reversed_effect_contradicts_its_claim(planted, claim):
    assert verdict(table(**planted), claim) in (verdicts.CONTRADICTED, verdicts.CONTRADICTED_HERE)


def test_without_a_difference_the_answer_is_open_with_much_noise_and_equivalence_with_little():
    same = dict.fromkeys(METHODS, 0.0)
    assert verdict(table(quality=same, noise=0.05), "G1") == verdicts.INCONCLUSIVE
    assert verdict(table(quality=same, noise=0.003), "G1") == verdicts.EQUIVALENT_HERE


def test_rivals_are_supported_by_controls_that_do_as_well():
    same = dict.fromkeys(METHODS, 0.2)
    assert verdict(table(quality=same), "H2") == verdicts.SUPPORTED_HERE


def test_an_effect_that_reverses_over_noise_rates_is_shown_by_rate():
    runs = table()
    shift = runs["noise_rate"].map({0.0: 0.0, 0.2: -0.3, 0.4: 0.0, 0.6: 0.1})
    spread = 1e-3 * np.random.default_rng(0).normal(size=len(runs))
    runs["mean_cos_plus_clean"] = runs["mean_cos_compensated_sam_clean"] + shift + spread
    judgement = judged(runs, "M3")["M3"]
    assert judgement.verdict == verdicts.MIXED
    assert "20%: -0.3" in judgement.conclusions[0]
    assert [part.estimate for part in judgement.effects[0].parts] == pytest.approx([-0.3, 0, 0.1], abs=0.01)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, verdicts.SUPPORTED_HERE), (0.05, verdicts.INCONCLUSIVE), (0.3, verdicts.CONTRADICTED_HERE)],
)
def test_a_bound_may_fail_on_as_many_draws_as_its_probability_says(share, expected):
    runs = table(seeds=40).query("method == 'SGD'").reset_index(drop=True)
    runs = runs.assign(**{f"bound_{loss}_right": 0.5 for loss in LOSSES})
    runs.loc[runs.index < share * len(runs), "bound_zero_one_slack"] = -0.1
    judgement = judged(runs, "T1")["T1"]
    assert judgement.verdict == expected
    assert judgement.effects[0].estimate == pytest.approx(share)


@pytest.mark.parametrize(
    ("slack", "found", "expected"),
    [
        (-5.0, True, verdicts.CONTRADICTED_HERE),
        # the maximum that was found is a lower bound of the maximum
        (-5.0, False, verdicts.NOT_MEASURED),
        (-5.0, np.nan, verdicts.NOT_MEASURED),
        (5.0, False, verdicts.SUPPORTED_HERE),
        (5.0, np.nan, verdicts.SUPPORTED_HERE),
    ],
)
def test_a_bound_fails_only_where_the_search_for_its_maximum_converged(slack, found, expected):
    runs = table(seeds=40, slack=slack, found=found).query("method == 'SGD'")
    runs = runs.assign(**{f"bound_{loss}_right": 0.5 for loss in LOSSES})
    assert verdict(runs, "T1") == expected


def test_single_failures_whose_search_did_not_converge_leave_the_bound_open():
    runs = table(seeds=40).query("method == 'SGD'").reset_index(drop=True)
    runs = runs.assign(**{f"bound_{loss}_right": 0.5 for loss in LOSSES})
    fails = runs.index < 0.3 * len(runs)
    runs.loc[fails, ["bound_zero_one_slack", "bound_zero_one_slack_converged"]] = -0.1, False
    judgement = judged(runs, "T1")["T1"]
    assert judgement.verdict == verdicts.INCONCLUSIVE
    assert f"{fails.sum()} draws lost (not converged)" in judgement.conclusions[0]


@pytest.mark.parametrize(
    "prediction",
    [
        lambda: Information("sharpness_observed", "test_accuracy", -1),
        lambda: Information("sharpness_observed", "test_accuracy", 0),
        lambda: Association("sharpness_observed", "test_accuracy", 2),
        lambda: Difference("test_accuracy", SAM, SGD, 3),
        lambda: Level("test_accuracy", SGD, -2, non_inferior=True),
        lambda: Level("test_accuracy", SGD, 0, non_inferior=True),
        lambda: Trend("test_accuracy", SGD, 2),
    ],
)
def test_a_sign_that_no_data_could_support_is_refused(prediction):
    with pytest.raises(ValueError, match=r"^sign: "):
        prediction()


def test_a_bound_above_one_in_every_run_is_no_evidence():
    effect = judged(table(), "T1")["T1"].effects[0]
    assert effect.verdict == verdicts.VACUOUS
    one_below = table()
    one_below.loc[0, "bound_zero_one_right"] = 0.9
    assert judged(one_below, "T1")["T1"].effects[0].verdict == verdicts.INCONCLUSIVE


def test_a_loss_that_falls_by_less_than_the_margin_is_no_contradiction():
    assert verdict(table(gap=-0.0002, noise=1e-4), "T2") == verdicts.SUPPORTED_HERE


def test_neither_the_order_of_runs_nor_that_of_columns_matters():
    runs = table(noise=0.05, seeds=3)
    shuffled = runs.sample(frac=1, random_state=3)[sorted(runs.columns)]
    # each kind of comparison
    some = [CLAIMS[name] for name in ("T1", "M3", "L3", "G3", "A1", "A3")]
    for one, other in zip(judge(runs, some), judge(shuffled, some), strict=True):
        np.testing.assert_equal([asdict(e) for e in one.effects], [asdict(e) for e in other.effects])
        np.testing.assert_equal([asdict(e) for e in one.controls], [asdict(e) for e in other.controls])


def test_neither_does_the_order_of_studies_that_are_judged_together():
    one, other = table(noise=0.05, seeds=3), table(seed=1, noise=0.05, seeds=3).assign(noise_kind="pair")
    some = [CLAIMS[name] for name in ("M3", "L1", "G1")]
    together = [judge(pd.concat(both, ignore_index=True), some) for both in ((one, other), (other, one))]
    for first, second in zip(*together, strict=True):
        np.testing.assert_equal([asdict(e) for e in first.effects], [asdict(e) for e in second.effects])


@pytest.mark.parametrize(
    "define",
    [
        lambda: Difference("test_loss", SAM, SGD, 0),
        lambda: Level("test_loss", SGD, 0),
        lambda: Level("test_loss", SGD, 1, non_inferior=True),
        lambda: Trend("test_loss", SGD, 0),
        lambda: Trend("test_accuracy", SGD, 0, against="rho"),
        lambda: Best("rho", "test_accuracy", SAM, 0.4, 0),
        lambda: Association("sharpness_observed", "test_accuracy", 0),
        lambda: Redrawn("test_loss", SGD, 0),
        lambda: RedrawnLessMean("test_loss", 0),
        lambda: Widening("test_loss", SAM, SGD, 0),
    ],
)
def test_a_prediction_of_no_difference_without_margin_is_refused_when_it_is_made(define):
    with pytest.raises(ValueError, match=r"^margin: a prediction of no difference, .* needs one; "):
        define()


def predictions_of(claim):
    return (*claim.predictions, *claim.controls)


def test_no_claim_predicts_the_sign_of_what_is_never_negative():
    levels = [p for claim in CLAIMS.values() for p in predictions_of(claim) if isinstance(p, Level)]
    assert levels
    assert not [p.quantity for p in levels if QUANTITIES[p.quantity].never_negative and p.sign == 1]


def test_the_sign_of_what_is_never_negative_is_vacuous():
    assert Level("late_decay", SGD, 1).effect(table()).verdict == verdicts.VACUOUS
    assert Level("late_decay", SGD, 0).effect(table()).verdict != verdicts.VACUOUS


def test_too_few_runs_for_a_verdict_say_how_many_it_takes():
    same = dict.fromkeys(METHODS, 0.0)
    runs = table(seeds=2, quality=same, noise=0.01).query("noise_rate <= 0.4")
    said = judged(runs, "G1")["G1"].conclusions[0]
    assert "To find one as large as the margin (0.01 share) takes about" in said


def test_verdicts_are_written_with_their_numbers_and_null_for_nan(tmp_path):
    path = tmp_path / "claims.json"
    write_json(judge(table().query("method != 'oracle'"), [CLAIMS["G1"]]), path)
    (stored,) = json.loads(path.read_text())
    effect = stored["effects"][0]
    assert effect["verdict"] == verdicts.SUPPORTED_HERE
    assert effect["estimand"] == "these cells"
    assert effect["low"] < effect["estimate"] < effect["high"]
    assert effect["samples"] == 18
    assert [part["name"] for part in effect["parts"]] == ["20%", "40%", "60%"]
    assert stored["controls"][-1]["needs"] == "runs of SAM, oracle"
    assert stored["controls"][-1]["estimate"] is None


OWN = """
from analysis.claims import SAM, SGD, Claim, Difference, register

register(
    Claim(
        id="X1",
        statement="SAM ends with a lower test loss than SGD.",
        place="my notebook",
        predictions=[Difference("test_loss", SAM, SGD, sign=-1)],
    )
)
"""


def test_a_claim_of_ones_own_is_read_from_a_file_and_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(claims.claim, "CLAIMS", dict(CLAIMS))
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    read_claims(path)
    (judgement,) = judge(table(), [claims.claim.CLAIMS["X1"]])
    assert judgement.verdict == verdicts.SUPPORTED_HERE
    with pytest.raises(ValueError, match="^--with: mine.py, line 4: ValueError: id"):
        read_claims(path)


def test_a_claim_has_to_predict_something():
    with pytest.raises(ValueError, match="^predictions: claim 'X2' has none"):
        register(Claim("X2", "It is so.", "here", []))


def test_every_claim_says_what_it_predicts_and_needs_before_any_data():
    for claim in CLAIMS.values():
        for prediction in (*claim.predictions, *claim.controls):
            assert prediction.describe()
            assert prediction.runs()
    assert (
        Difference("test_accuracy", SAM, SGD, 1).describe()
        == "clean test accuracy, last epoch: SAM less SGD > 0"
    )
