"""Claims E11 to E13 on studies with a planted truth: width, weight decay and crops, traces of layers as an alarm."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.claims import CLAIMS, judge
from analysis.claims.effect import CONTRADICTED_HERE, EQUIVALENT_HERE, NOT_MEASURED, SUPPORTED_HERE
from tests.analysis.synthetic_study import table, verdict

pytestmark = pytest.mark.usefixtures("quick_judgements")

OTHER_WIDTH = json.dumps(["model.hidden"])


def judged(claim, runs):
    (judgement,) = judge(runs, [replace(CLAIMS[claim], controls=())])
    return [effect.verdict for effect in judgement.effects]


def of_widths(gain, flatter, sizes=(1e3, 1e4, 1e5)):
    """SGD and SAM in networks of several sizes: what SAM gains, and flattens in decades, grows with each decade."""
    runs = table(seeds=5)
    runs = runs[runs["method"].isin(("SGD", "SAM"))]
    rng = np.random.default_rng(0)
    found = []
    for size in sizes:
        decades = np.log10(size / sizes[0]) * (runs["method"] == "SAM")
        found.append(
            runs.assign(
                method=runs["method"] + f", {size:g} weights",
                weight_count=size,
                changed=OTHER_WIDTH if size > sizes[0] else "[]",
                test_accuracy=0.7 + gain * decades + 1e-3 * rng.normal(size=len(runs)),
                top_eigenvalue_observed=10 ** (1 - flatter * decades + 1e-3 * rng.normal(size=len(runs))),
            )
        )
    return pd.concat(found, ignore_index=True)


@pytest.mark.parametrize(
    ("gain", "flatter", "expected"),
    [
        (0.03, 0.2, [SUPPORTED_HERE] * 2),
        (0.03, 0.0, [SUPPORTED_HERE, EQUIVALENT_HERE]),
        (0.0, 0.2, [EQUIVALENT_HERE, SUPPORTED_HERE]),
        (-0.03, -0.2, [CONTRADICTED_HERE] * 2),
    ],
)
def test_what_sam_gains_with_the_width_is_found(gain, flatter, expected):
    assert judged("E11", of_widths(gain, flatter)) == expected


def test_the_slope_is_that_of_the_gain_over_decades_of_weights():
    (judgement,) = judge(of_widths(0.03, 0.2), [CLAIMS["E11"]])
    accuracy, eigenvalue = judgement.effects
    assert accuracy.estimate == pytest.approx(0.03, abs=1e-3)
    assert eigenvalue.estimate == pytest.approx(-0.2, abs=1e-3)


def test_one_width_says_nothing_of_the_width():
    assert judged("E11", of_widths(0.03, 0.2, sizes=(1e3,))) == [NOT_MEASURED] * 2


def test_a_network_that_was_also_trained_in_another_way_is_no_other_width():
    runs = of_widths(0.03, 0.2)
    wide = runs["weight_count"] == 1e5
    changed = json.dumps(["model.hidden", "training.weight_decay"])
    assert judged("E11", runs.assign(changed=runs["changed"].mask(wide, changed))) == judged(
        "E11", runs[~wide]
    )


def of_regularizers(decayed, cropped):
    """SGD without and with each regularizer: (gain in accuracy, change of sharpness in decades)."""
    runs = table(seeds=5)
    runs = runs[runs["method"] == "SGD"].assign(changed="[]")
    rng = np.random.default_rng(0)
    found = []
    for name, (gain, sharper) in {
        "": (0.0, 0.0),
        "training.weight_decay": decayed,
        "training.crop": cropped,
    }.items():
        found.append(
            runs.assign(
                method=f"SGD {name}",
                changed=json.dumps([name] if name else []),
                test_accuracy=0.7 + gain + 1e-3 * rng.normal(size=len(runs)),
                sharpness_observed=10 ** (sharper + 1e-3 * rng.normal(size=len(runs))),
            )
        )
    return pd.concat(found, ignore_index=True)


@pytest.mark.parametrize(
    ("decayed", "cropped", "expected"),
    [
        ((0.1, 0.2), (0.1, 0.2), [SUPPORTED_HERE] * 4),
        ((0.1, 0.2), (0.1, -0.2), [SUPPORTED_HERE] * 3 + [CONTRADICTED_HERE]),
        ((0.0, 0.0), (0.0, 0.0), [EQUIVALENT_HERE] * 4),
    ],
)
def test_what_a_regularizer_does_to_accuracy_and_sharpness_is_found(decayed, cropped, expected):
    assert judged("E12", of_regularizers(decayed, cropped)) == expected


@pytest.mark.parametrize("claim", ["L1", "L2", "G1", "M1"])
def test_runs_of_another_architecture_or_training_have_no_part_in_other_claims(claim):
    runs = table(seeds=3).assign(changed="[]")
    others = runs.assign(
        changed=OTHER_WIDTH,
        method=runs["method"] + ", wide",
        test_accuracy=0.1,
        sharpness_observed=1e3,
        top_eigenvalue_observed=1e3,
        mean_cos_sam_clean=0.9,
    )
    assert verdict(pd.concat([runs, others], ignore_index=True), claim) == verdict(runs, claim)


@pytest.mark.parametrize(
    ("lead", "growth", "expected"),
    [
        (1.0, 2.0, [SUPPORTED_HERE] * 2),
        # two epochs late is the margin
        (-5.0, 0.0, [CONTRADICTED_HERE, EQUIVALENT_HERE]),
    ],
)
def test_a_layers_alarm_before_the_best_epoch_and_a_rise_with_the_noise_are_found(lead, growth, expected):
    runs = table(seeds=5)
    spread = np.random.default_rng(0).normal(size=(2, len(runs)))
    columns = {
        "layer_alarm_lead": lead + 0.1 * spread[0],
        "layer_rise": 0.3 + growth * runs["noise_rate"] + 1e-3 * spread[1],
    }
    assert judged("E13", runs.assign(**columns)) == expected
