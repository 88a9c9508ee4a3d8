"""Which runs belong to a method, and which of several methods enters a claim."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from analysis.claims import CLAIMS, SAM, SGD, Difference, judge
from analysis.claims.effect import (
    NOT_MEASURED,
    SUPPORTED_HERE,
)
from analysis.claims.variants import LARGER_SAM, NCSAM, SAM_AS_LONG, family_of, select, series_over
from analysis.claims.wording import conclusion
from tests.analysis.synthetic_study import METHODS, judged, table, verdict

pytestmark = pytest.mark.usefixtures("quick_judgements")


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


@pytest.mark.parametrize(
    ("chosen", "note"),
    [
        ({"SAM": 4, "NCSAM": 1}, "SAM was chosen from 4 candidates, NCSAM has values set by hand."),
        ({"SAM": 1, "NCSAM": 3}, "NCSAM was chosen from 3 candidates, SAM has values set by hand."),
        ({"SAM": 4, "NCSAM": 2}, ""),
        ({"SAM": 1, "NCSAM": 1}, ""),
        # SGD has no values that could be chosen
        ({"SAM": 4, "SGD": 1}, ""),
    ],
)
def test_a_comparison_of_a_chosen_method_with_one_set_by_hand_says_so(chosen, note):
    runs = table(seeds=2)
    runs = runs[runs["method"].isin(chosen)].assign(candidates=runs["method"].map(chosen))
    more, less = list(chosen)[::-1]
    variants = {"SAM": SAM, "SGD": SGD, "NCSAM": NCSAM}
    effect = Difference("test_accuracy", variants[more], variants[less], 1).effect(runs)
    assert effect.note == note
    assert conclusion(effect).endswith(note)


def test_which_of_several_methods_with_values_set_by_hand_is_meant_is_not_guessed():
    judgement = judged(table().assign(candidates=1), "M4")["M4"]
    assert judgement.verdict == NOT_MEASURED
    assert "NCSAM, flip 0.2, flip 0.3" in judgement.conclusions[0]
    assert "differ in values set by hand" in judgement.conclusions[0]


def test_runs_with_other_losses_are_no_methods_to_rank():
    runs = table()
    gce = runs[runs["method"] == "SAM"].assign(method="GCE", loss="gce", train_loss=5.0, test_accuracy=0.1)
    plain, both = (judged(r, "L3")["L3"].effects for r in (runs, pd.concat([runs, gce])))
    np.testing.assert_equal([asdict(e) for e in both], [asdict(e) for e in plain])


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
    # NCSAM with four more flip ratios, two more strengths, and a strength of 0; SAM with two radii
    assert sorted(families) == [1, 1, 1, 1, 1, 2, 8]


def test_a_larger_radius_is_told_by_its_size():
    assert set(select(table(), LARGER_SAM)["method"]) == {"SAM, rho 0.5"}
    assert select(table().query("method != 'SAM, rho 0.5'"), LARGER_SAM).empty


@pytest.mark.parametrize("special", [{"loss": "gce"}, {"changed": ("training.weight_decay",)}])
def test_a_larger_radius_is_larger_than_that_of_the_method_with_the_same_loss_and_training(special):
    rows = [  # plain SAM has a smaller radius than any of the method
        ("SAM", 0.05, 3, {}),
        ("chosen", 0.2, 3, special),
        ("smaller", 0.1, 1, special),
        ("larger", 0.5, 1, special),
    ]
    sam = table(seeds=1).query("method == 'SAM'")
    runs = [
        sam.assign(
            method=label,
            hyperparameters=json.dumps({"rho": rho}),
            candidates=candidates,
            loss=of.get("loss", "cross-entropy"),
            changed=json.dumps(of.get("changed", ())),
        )
        for label, rho, candidates, of in rows
    ]
    assert set(select(pd.concat(runs), replace(LARGER_SAM, **special))["method"]) == {"larger"}


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
    assert set(runs["method"]) == {"NCSAM", "flip 0.2", "flip 0.3", "flip 0.5", "flip 0.6"}
    assert set(series_over(table(), NCSAM, "strength")["method"]) == {"NCSAM", "kappa 0.2", "kappa 0.4"}


def with_twin(runs):
    """The runs, and those of SAM once more under the name of a method that was chosen."""
    return pd.concat([runs, runs[runs["method"] == "SAM"].assign(method="chosen SAM")], ignore_index=True)


def test_a_method_whose_runs_are_anothers_is_left_out_by_name():
    runs = table(seeds=5)
    alone, beside = (judge(found, [CLAIMS["L3"]])[0].effects[0] for found in (runs, with_twin(runs)))
    assert beside.finding.these == alone.finding.these
    # of two twins the first by name goes
    assert "SAM is left out: all runs are other methods' too, to the bit." in conclusion(beside)


def test_methods_whose_compared_quantity_differs_are_two():
    runs = with_twin(table(seeds=5))
    is_twin = runs["method"] == "chosen SAM"
    runs["sharpness_observed"] *= np.where(is_twin, 1.5, 1.0)
    assert "left out" not in conclusion(judge(runs, [CLAIMS["L3"]])[0].effects[0])
