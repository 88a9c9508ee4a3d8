import json

import numpy as np
import pandas as pd
import pytest

from analysis import claims
from analysis.claims import Claim, judge, register, write_json
from analysis.statistics import CONTRADICTED, INCONCLUSIVE, SUPPORTED, paired_effect
from ncsam.alignment import ALIGNMENT_METRICS

METHODS = {
    "SGD": ("plain", {}),
    "SAM": ("sam", {"rho": 0.2}),
    "NCSAM": ("ncsam", {"rho": 0.2, "strength": 0.1}),
    "opposite": ("ncsam", {"rho": 0.2, "strength": 0.1, "compensation": -1}),
    "oracle": ("oracle-sam", {"rho": 0.2}),
}


def table(seed=0, noise=1e-3, **planted):
    """A study of 5 methods, 4 rates and 3 seeds in which every claim of the paper is true, but for `planted`."""
    rng = np.random.default_rng(seed)
    quality = {"SGD": 0.0, "SAM": 0.1, "NCSAM": 0.2, "opposite": 0.05, "oracle": 0.25}
    quality.update(planted.get("quality", {}))
    rows = []
    for method, (name, settings) in METHODS.items():
        for rate in (0.0, 0.2, 0.4, 0.6):
            for number in range(3):
                flat = quality[method] * rate
                row = {
                    "dataset": "d",
                    "noise_kind": "symmetric",
                    "noise_rate": rate,
                    "method": method,
                    "seed": number,
                    "method_name": name,
                    "loss": "cross-entropy",
                    "mixup": 0,
                    "hyperparameters": json.dumps(settings),
                    "test_accuracy": 0.9 - 0.5 * rate + flat,
                    "best_test_accuracy": 0.95 - 0.2 * rate,
                    "memorized": rate - flat,
                    "recovered": 0.3 + flat,
                }
                for loss in ("observed", "clean"):
                    growth = planted.get("growth", 1.0)
                    row[f"top_eigenvalue_{loss}"] = 2 + growth * 10 * rate - 10 * flat
                    row[f"sharpness_{loss}"] = 2 + growth * 5 * rate - 5 * flat
                    row[f"trace_{loss}"] = 20 + 50 * rate
                row |= {f"mean_{metric}": np.nan for metric in ALIGNMENT_METRICS}
                row["mean_cos_sam_clean"] = 1 - rate
                if name == "ncsam":
                    row["mean_cos_compensated_sam_clean"] = 1 - rate
                    row["mean_cos_plus_clean"] = 1 - rate + planted.get("gain", 0.2)
                    row["mean_cos_minus_clean"] = 1 - rate - 0.2
                    row["mean_cos_gstar_noise"] = planted.get("gstar", 0.3)
                rows.append(
                    {
                        k: v + noise * rng.normal() if isinstance(v, float) and k != "noise_rate" else v
                        for k, v in row.items()
                    }
                )
    return pd.DataFrame(rows)


def verdicts(runs):
    return {judgement.id: judgement.verdict for judgement in judge(runs)}


def test_a_study_in_which_every_claim_holds_supports_every_claim():
    assert verdicts(table()) == dict.fromkeys(["L1", "L3", "M2", "M3", "G1", "G2", "G3"], SUPPORTED)


@pytest.mark.parametrize(
    ("planted", "claim"),
    [
        ({"growth": -0.3}, "L1"),
        ({"gain": -0.2}, "M3"),
        ({"gstar": -0.3}, "M3"),
        ({"quality": {"NCSAM": -0.1}}, "G1"),
        ({"quality": {"NCSAM": -0.1}}, "G2"),
        ({"quality": {"NCSAM": -0.1}}, "G3"),
    ],
)
def test_a_reversed_effect_contradicts_its_claim(planted, claim):
    assert verdicts(table(**planted))[claim] == CONTRADICTED


def test_pure_noise_decides_nothing_about_methods():
    assert verdicts(table(quality=dict.fromkeys(METHODS, 0.0), noise=0.05))["G1"] == INCONCLUSIVE


def test_the_order_of_runs_does_not_matter():
    runs = table(noise=0.05)
    shuffled = runs.sample(frac=1, random_state=3)
    for one, other in zip(judge(runs), judge(shuffled), strict=True):
        assert [vars(e) for e in one.effects] == [vars(e) for e in other.effects]


def test_missing_methods_leave_a_claim_inconclusive():
    found = verdicts(table().query("method in ['SGD', 'SAM']"))
    assert found["M3"] == found["G2"] == found["G3"] == INCONCLUSIVE
    assert found["M2"] == SUPPORTED


def test_the_opposite_sign_is_not_taken_for_ncsam():
    runs = table()
    worse = runs.assign(test_accuracy=runs["test_accuracy"].where(runs["method"] != "opposite", 0.0))
    assert verdicts(worse)["G1"] == SUPPORTED


def test_a_second_variant_of_a_method_does_not_count_pairs_twice():
    runs = table()
    variant = runs[runs["method"] == "NCSAM"].assign(method="NCSAM, other strength", test_accuracy=0.0)
    g1 = next(j for j in judge(pd.concat([runs, variant])) if j.id == "G1")
    assert g1.effects[0].samples == 9
    assert g1.verdict == SUPPORTED


def test_verdicts_are_written_with_their_numbers_and_null_for_nan(tmp_path):
    path = tmp_path / "claims.json"
    write_json(judge(table().query("method != 'oracle'")), path)
    stored = {claim["id"]: claim for claim in json.loads(path.read_text())}
    effect = stored["G1"]["effects"][0]
    assert effect["verdict"] == SUPPORTED
    assert effect["low"] < effect["estimate"] < effect["high"]
    assert effect["samples"] == 9
    oracle = stored["G1"]["controls"][2]
    assert oracle["estimate"] is None


def test_a_claim_of_ones_own_is_judged_too(monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", dict(claims.CLAIMS))
    own = Claim(
        "X1",
        "SGD is accurate.",
        "here",
        "above one half",
        lambda t: [paired_effect("x", t[t.method == "SGD"].test_accuracy - 0.5, predicted=1, unit="share")],
    )
    register(own)
    assert verdicts(table())["X1"] == SUPPORTED
    with pytest.raises(ValueError, match="^id"):
        register(own)
