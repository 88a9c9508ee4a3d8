"""The claims on studies with a known truth."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from analysis import claims
from analysis.claims import CLAIMS, SAM, SGD, Claim, Difference, judge, read_claims, register, write_json
from analysis.claims.effect import (
    CONTRADICTED,
    CONTRADICTED_HERE,
    EQUIVALENT_HERE,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    SUPPORTED,
    SUPPORTED_HERE,
    VACUOUS,
)
from analysis.claims.variants import LARGER_SAM, NCSAM, SAM_AS_LONG, family_of, select, series_over
from analysis.claims.wording import conclusion
from tests.analysis.synthetic_study import LOSSES, METHODS, table

UNIFORM = {"draw": "uniform", "labels": "uniform"}
PAPERS = [
    *("T1", "T2", "T3", "M1", "M2", "M3", "M4", "L1", "L2", "L3"),
    *("G1", "G2", "G3", "A1", "A2", "A3"),
]


pytestmark = pytest.mark.usefixtures("quick_judgements")


def judged(runs, *names):
    return {j.claim.id: j for j in judge(runs, [CLAIMS[name] for name in names] if names else None)}


def verdict(runs, name):
    return judged(runs, name)[name].verdict


def test_a_study_in_which_the_paper_is_right_supports_each_of_its_claims_and_neither_rival():
    found = {name: judgement.verdict for name, judgement in judged(table(seeds=7)).items()}
    rivals = {"H1": CONTRADICTED_HERE, "H2": CONTRADICTED_HERE}
    # its bounds are above 1, so that they cannot fail
    vacuous = {"T1": VACUOUS}
    # its labels are never redrawn, and its Jacobian is not measured
    unmeasured = {"F1": NOT_MEASURED, "F2": NOT_MEASURED, "F3": NOT_MEASURED}
    assert found == dict.fromkeys(PAPERS, SUPPORTED_HERE) | vacuous | unmeasured | rivals


def with_jacobian(runs, decades, seed=0):
    """The runs with a trace of J^T J of 10^4, and as many decades more or less as `decades` says of a label."""
    noise = 0.02 * np.random.default_rng(seed).normal(size=len(runs))
    return runs.assign(
        jacobian_trace_observed=10.0 ** (4 + runs["method"].map(decades).fillna(0) + noise),
        jacobian_trace_observed_converged=True,
        sharpness_elementwise_clean=10.0 ** (runs["method"].map(decades).fillna(0) + noise),
        sharpness_elementwise_clean_converged=True,
    )


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-1.0, SUPPORTED_HERE), (1.0, CONTRADICTED_HERE)],
)
def test_redrawn_labels_are_compared_with_fixed_ones_at_the_same_rate(decades, expected):
    runs = table()
    fixed = with_jacobian(runs, {}, seed=0)
    redrawn = with_jacobian(runs, {"SGD": decades}, seed=1).assign(
        noise_kind="symmetric, redrawn each step", test_accuracy=runs["test_accuracy"] - decades / 10
    )
    assert verdict(pd.concat([fixed, redrawn]), "F1") == expected


def redrawn_beside_their_mean(decades):
    runs = table()
    plain = runs[runs["method"] == "SGD"]
    redrawn = with_jacobian(plain[plain["noise_rate"] > 0], {"SGD": decades}, seed=1)
    smoothed = [
        with_jacobian(plain[plain["noise_rate"] == 0], {}, seed=2).assign(
            method=f"mean of {rate:.0%}", label_smoothing=round(rate * 10 / 9, 10)
        )
        for rate in (0.2, 0.4, 0.6)
    ]
    return pd.concat(
        [redrawn.assign(noise_kind="symmetric, redrawn each step"), *smoothed], ignore_index=True
    )


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-1.0, SUPPORTED_HERE), (0.0, EQUIVALENT_HERE), (1.0, CONTRADICTED_HERE)],
)
def test_redrawn_labels_are_compared_with_true_labels_smoothed_to_their_mean(decades, expected):
    assert verdict(redrawn_beside_their_mean(decades), "F3") == expected


def test_a_smoothed_run_that_did_not_converge_is_counted():
    runs = redrawn_beside_their_mean(-1.0)
    one = runs.index[runs["label_smoothing"] > 0][0]
    runs.loc[one, "jacobian_trace_observed_converged"] = False
    effect = judged(runs, "F3")["F3"].effects[0]
    assert effect.coverage.not_converged == 1
    assert effect.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-1.0, SUPPORTED_HERE), (0.0, EQUIVALENT_HERE), (1.0, CONTRADICTED_HERE)],
)
def test_simulated_labels_are_compared_with_no_compensation(decades, expected):
    runs = table()
    flips = json.dumps(json.loads(runs[runs["method"] == "NCSAM"]["hyperparameters"].iloc[0]) | UNIFORM)
    random = runs[runs["method"] == "NCSAM"].assign(method="random flips", hyperparameters=flips)
    noisy = pd.concat([runs, random])
    planted = with_jacobian(noisy, {"NCSAM": decades, "random flips": decades})
    assert verdict(planted, "F2") == expected


def test_from_six_cells_or_series_on_verdicts_are_about_the_population():
    kinds = [table(seed=seed, seeds=3).assign(noise_kind=f"kind {seed}") for seed in range(6)]
    found = {n: j.verdict for n, j in judged(pd.concat(kinds), "T2", "M2", "L1", "L3", "G1").items()}
    assert found == dict.fromkeys(found, SUPPORTED)


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
    assert verdict(table(**planted), claim) in (CONTRADICTED, CONTRADICTED_HERE)


def test_without_a_difference_the_answer_is_open_with_much_noise_and_equivalence_with_little():
    same = dict.fromkeys(METHODS, 0.0)
    assert verdict(table(quality=same, noise=0.05), "G1") == INCONCLUSIVE
    assert verdict(table(quality=same, noise=0.003), "G1") == EQUIVALENT_HERE


def test_rivals_are_supported_by_controls_that_do_as_well():
    same = dict.fromkeys(METHODS, 0.2)
    assert verdict(table(quality=same), "H2") == SUPPORTED_HERE


def test_an_effect_that_reverses_over_noise_rates_is_shown_by_rate():
    runs = table()
    shift = runs["noise_rate"].map({0.0: 0.0, 0.2: -0.3, 0.4: 0.0, 0.6: 0.1})
    runs["mean_cos_plus_clean"] = runs["mean_cos_compensated_sam_clean"] + shift
    judgement = judged(runs, "M3")["M3"]
    assert judgement.verdict == MIXED
    assert "20%: -0.3" in judgement.conclusions[0]
    assert [part.estimate for part in judgement.effects[0].parts] == pytest.approx([-0.3, 0, 0.1], abs=0.01)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, SUPPORTED_HERE), (0.05, INCONCLUSIVE), (0.3, CONTRADICTED_HERE)]
)
def test_a_bound_may_fail_on_as_many_draws_as_its_probability_says(share, expected):
    runs = table(seeds=40).query("method == 'SGD'").reset_index(drop=True)
    runs = runs.assign(**{f"bound_{loss}_right": 0.5 for loss in LOSSES})
    runs.loc[runs.index < share * len(runs), "bound_zero_one_slack"] = -0.1
    judgement = judged(runs, "T1")["T1"]
    assert judgement.verdict == expected
    assert judgement.effects[0].estimate == pytest.approx(share)


def test_a_bound_above_one_in_every_run_is_no_evidence():
    effect = judged(table(), "T1")["T1"].effects[0]
    assert effect.verdict == VACUOUS
    one_below = table()
    one_below.loc[0, "bound_zero_one_right"] = 0.9
    assert judged(one_below, "T1")["T1"].effects[0].verdict == INCONCLUSIVE


def test_a_loss_that_falls_by_less_than_the_margin_is_no_contradiction():
    assert verdict(table(gap=-0.0002, noise=1e-4), "T2") == SUPPORTED_HERE


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


def test_what_another_study_did_not_measure_is_not_lost():
    runs = table(seeds=7).assign(study="one")
    columns = [name for name in runs if name.startswith(("mean_cos", "mean_draw", "mean_temp", "bound_"))]
    without = table(seed=1).assign(
        study="two", seed=lambda t: t["seed"] + 100, **dict.fromkeys(columns, np.nan)
    )
    both = pd.concat([runs, without[without["method"].isin(["SGD", "SAM", "NCSAM"])]])
    names = ("M1", "M2", "M3", "M4", "T1", "A1")
    for name, judgement in judged(both, *names).items():
        alone = judged(runs, *names)[name]
        assert judgement.verdict == (VACUOUS if name == "T1" else SUPPORTED_HERE)
        for found, expected in zip(judgement.effects, alone.effects, strict=True):
            # the values of a series that the other study lacks are named
            np.testing.assert_equal(asdict(replace(found, coverage=expected.coverage)), asdict(expected))
            assert not found.missing or name == "A1"


def test_names_that_a_study_gives_its_methods_change_no_verdict():
    runs = table(seeds=7)
    names = sorted(runs["method"].unique())
    renamed = runs.assign(method=runs["method"].map(dict(zip(names, reversed(names), strict=True))))
    assert {n: j.verdict for n, j in judged(renamed).items()} == {
        n: j.verdict for n, j in judged(runs).items()
    }


def test_of_methods_with_values_set_by_hand_the_one_like_the_control_is_compared():
    by_hand = table().assign(candidates=1)
    effect = judged(by_hand, "A2")["A2"].effects[0]
    assert effect.estimate == pytest.approx((0.2 - 0.12) * 0.4, abs=0.002)


def test_which_of_several_methods_with_values_set_by_hand_is_meant_is_not_guessed():
    judgement = judged(table().assign(candidates=1), "M4")["M4"]
    assert judgement.verdict == NOT_MEASURED
    assert "NCSAM, flip 0.2, flip 0.3" in judgement.conclusions[0]
    assert "differ in values set by hand" in judgement.conclusions[0]


def test_a_flip_ratio_without_effect_supports_no_best_one():
    same = dict.fromkeys(METHODS, 0.2)
    found = [verdict(table(seed=seed, quality=same, noise=0.01, seeds=12), "A1") for seed in range(10)]
    # Friedman's test errs in one of twenty
    assert found.count(SUPPORTED_HERE) <= 1


def test_runs_with_other_losses_are_no_methods_to_rank():
    runs = table()
    gce = runs[runs["method"] == "SAM"].assign(method="GCE", loss="gce", train_loss=5.0, test_accuracy=0.1)
    plain, both = (judged(r, "L3")["L3"].effects for r in (runs, pd.concat([runs, gce])))
    np.testing.assert_equal([asdict(e) for e in both], [asdict(e) for e in plain])


def test_too_few_runs_for_a_verdict_say_how_many_it_takes():
    same = dict.fromkeys(METHODS, 0.0)
    runs = table(seeds=2, quality=same, noise=0.05).query("noise_rate <= 0.4")
    said = judged(runs, "G1")["G1"].conclusions[0]
    assert "To find one as large as the margin (0.01 share) takes about" in said


def test_the_opposite_sign_and_other_controls_are_not_taken_for_ncsam():
    runs = table()
    controls = ["opposite", "constant", "random", "bare"]
    worse = runs.assign(test_accuracy=runs["test_accuracy"].where(~runs["method"].isin(controls), 0.0))
    assert verdict(worse, "G1") == SUPPORTED_HERE
    assert select(runs[runs["method"].isin(controls)], NCSAM).empty


def test_other_losses_and_mixed_labels_are_not_taken_for_sgd():
    runs = table()
    others = runs[runs["method"] == "SGD"].assign(test_accuracy=1.0)
    gce, mixed = others.assign(method="AAA", loss="gce"), others.assign(method="AAB", mixup=1.0)
    assert set(select(pd.concat([runs, gce, mixed]), SGD)["method"]) == {"SGD"}


def test_sam_with_a_warmup_is_not_taken_for_sam():
    runs = table()
    warmed = runs[runs["method"] == "SAM"].assign(
        method="AAA", hyperparameters=json.dumps({"rho": 0.2, "warmup": 0.25}), test_accuracy=1.0
    )
    assert set(select(pd.concat([runs, warmed]), SAM)["method"]) == {"SAM"}


def test_of_two_variants_of_a_method_the_one_chosen_from_more_candidates_is_compared():
    runs = table()
    by_hand = runs[runs["method"] == "SAM"].assign(method="AAA", candidates=1, test_accuracy=0.0)
    both = pd.concat([runs, by_hand])
    assert set(select(both, SAM)["method"]) == {"SAM"}
    assert judged(both, "G1")["G1"].effects[0].samples == 18


@pytest.mark.parametrize("changed", [None, "test_accuracy", "train_loss"])
def test_a_method_whose_runs_are_all_another_ones_is_no_further_unit_over_methods(changed):
    runs = table()
    chosen = runs[runs["method"] == "SAM, rho 0.5"].assign(method="SAM, chosen")
    chosen.loc[chosen["noise_rate"] == 0.2] = (
        runs[(runs["method"] == "SAM") & (runs["noise_rate"] == 0.2)].assign(method="SAM, chosen").to_numpy()
    )
    if changed:
        chosen.loc[(chosen["noise_rate"] == 0.4) & (chosen["seed"] == 0), changed] += 1e-6
    judgement = judged(pd.concat([runs, chosen]), "L3")["L3"]
    assert {e.samples for e in judgement.controls if e.counted == "methods"} == {
        len(METHODS) + (changed is not None)
    }
    # as a family all of them are SAM
    assert {e.samples for e in judgement.effects} == {7}


def test_methods_that_differ_in_tuned_values_only_are_kin():
    runs = table(seeds=1).drop_duplicates("method")
    families = family_of(runs).groupby(family_of(runs)).size()
    # NCSAM with three more flip ratios, two more strengths, and a strength of 0; SAM with two radii
    assert sorted(families) == [1, 1, 1, 1, 1, 2, 7]


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
    assert first.needs == "values that converged; 336 of 336 runs not converged"


def test_a_study_without_flags_beside_one_with_flags_is_left_out_and_one_that_did_not_converge_is_not():
    new, old = table().assign(study="new"), table(seed=1).assign(study="old")
    flags = [f"{name}_converged" for name in SHARPNESS]
    expected = judged(new, "L2")["L2"]
    for flag, verdict_of_both in ((np.nan, SUPPORTED_HERE), (0.0, INCONCLUSIVE)):
        both = pd.concat([new, old.assign(seed=old["seed"] + 100, **dict.fromkeys(flags, flag))])
        found = judged(both, "L2")["L2"]
        assert found.verdict == verdict_of_both
        assert found.effects[0].estimate == pytest.approx(expected.effects[0].estimate)


def test_a_larger_radius_is_told_by_its_size():
    assert set(select(table(), LARGER_SAM)["method"]) == {"SAM, rho 0.5"}
    assert select(table().query("method != 'SAM, rho 0.5'"), LARGER_SAM).empty


def test_sam_with_perturbations_as_long_is_told_by_their_recorded_norm_noise_by_noise():
    runs = table()
    assert set(select(runs, SAM_AS_LONG)["method"]) == {"SAM"}
    at_40 = (runs["method"] == "NCSAM") & (runs["noise_rate"] == 0.4)
    longer = runs.assign(mean_perturbation_norm=runs["mean_perturbation_norm"].mask(at_40, 0.45))
    chosen = select(longer, SAM_AS_LONG).groupby("noise_rate")["method"].unique()
    assert [list(methods) for methods in chosen] == [["SAM"], ["SAM"], ["SAM, rho 0.5"], ["SAM"]]
    none_as_long = runs.assign(mean_perturbation_norm=runs["mean_perturbation_norm"].mask(at_40, 1.0))
    judgement = judged(none_as_long, "H2")["H2"]
    assert judgement.missing == [
        "SAM with perturbations as long as NCSAM's, d, symmetric 40%, seed 0, 1, 2, 3, 4, 5: no run"
    ]
    before = runs.drop(columns="mean_perturbation_norm")
    assert judged(before, "H2")["H2"].effects[0].needs == "runs of SAM with perturbations as long as NCSAM's"


def test_a_series_over_a_hyper_parameter_changes_nothing_else():
    runs = series_over(table(), NCSAM, "flip_ratio")
    assert set(runs["method"]) == {"NCSAM", "flip 0.2", "flip 0.3", "flip 0.5"}
    assert set(series_over(table(), NCSAM, "strength")["method"]) == {"NCSAM", "kappa 0.2", "kappa 0.4"}


def test_verdicts_are_written_with_their_numbers_and_null_for_nan(tmp_path):
    path = tmp_path / "claims.json"
    write_json(judge(table().query("method != 'oracle'"), [CLAIMS["G1"]]), path)
    (stored,) = json.loads(path.read_text())
    effect = stored["effects"][0]
    assert effect["verdict"] == SUPPORTED_HERE
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
    assert judgement.verdict == SUPPORTED_HERE
    with pytest.raises(ValueError, match="^--with: .*mine.py fails: ValueError: id"):
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
