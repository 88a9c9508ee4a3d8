"""The study files that ship can be run as they are, say how much there is to run, and can decide what they are for."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.claims import CLAIMS, QUANTITIES, judge
from analysis.claims.effect import NOT_MEASURED, SIGNIFICANCE
from analysis.plan import StudyError, final_runs, read_study, selection_runs
from analysis.plan.leaderboard import read_leaderboard
from ncsam.training import METRICS
from tests.analysis.tiny_study import TINY

pytestmark = pytest.mark.usefixtures("quick_judgements")

FILES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
LEADERBOARDS = [path for path in FILES if "[[data]]" in path.read_text()]
STUDIES = [path for path in FILES if path not in LEADERBOARDS]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_file_is_valid_and_its_head_counts_its_runs(path):
    study = read_study(path)
    runs = final_runs(study)
    trials = {trial.path for run in runs for trial in selection_runs(study, run)}
    assert study.name == path.stem
    head = path.read_text().split("\nname =")[0]
    said = f"{len(runs)} runs and {len(trials)} more to choose" if trials else f"{len(runs)} runs"
    assert re.search(rf"\b{said}\b", head)
    assert f"ncsam study studies/{path.name} --out results/{path.stem}" in head


@pytest.mark.parametrize("path", LEADERBOARDS, ids=lambda path: path.stem)
def test_a_leaderboard_file_is_valid_and_its_head_counts_its_methods(path):
    board = read_leaderboard(path)
    controls = [method for method in board.methods if method.control]
    assert board.name == path.stem
    head = path.read_text().split("\nname =")[0]
    assert (
        f"{len(board.methods) - len(controls)} methods against wrong labels and {len(controls)} controls"
        in head
    )
    assert f"ncsam leaderboard studies/{path.name} --out results/{path.stem}" in head
    for data in board.data:
        assert f"--only {data.title}" in head


def table_of(path):
    """What the study's runs would leave, with numbers that mean nothing."""
    rng = np.random.default_rng(0)
    columns = sorted({*METRICS, *(column for quantity in QUANTITIES.values() for column in quantity.columns)})
    rows = []
    for run in final_runs(read_study(path)):
        config, method = run.config, run.config.method
        chosen = method.candidates[0]
        rows.append(
            dict(zip(columns, rng.uniform(0.1, 0.9, len(columns)), strict=True))
            | config.identity._asdict()
            | {"classes": 10, "method_name": method.name, "loss": method.loss.name}
            | {"mixup": 0.0, "label_smoothing": 0.0, "diverged": False, "candidates": len(method.candidates)}
            | {f"sharpness_{loss}_converged": True for loss in ("observed", "clean")}
            | {"hyperparameters": json.dumps(chosen), "mean_perturbation_norm": chosen.get("rho", np.nan)}
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("study", "families"),
    [
        ("theory", "T"),
        ("mechanism", "MH"),
        ("ablations", "A"),
        *((s.stem, "L") for s in STUDIES if "landscape" in s.stem),
    ],
)
def test_a_study_has_the_runs_that_its_claims_need_and_enough_of_them_for_verdicts(study, families):
    found = judge(
        table_of(STUDIES[0].with_name(f"{study}.toml")), [c for c in CLAIMS.values() if c.family in families]
    )
    effects = [effect for judgement in found for effect in judgement.effects]
    assert [
        e.needs for e in effects + [c for j in found for c in j.controls] if e.verdict == NOT_MEASURED
    ] == []
    undecided = [effect.name for effect in effects if effect.test.smallest_p >= SIGNIFICANCE / effect.tests]
    # six families have 36 orders among neighbors, as docs/claims.md says
    assert [name for name in undecided if "given training loss" not in name] == []


def test_a_key_of_the_noise_that_is_no_option_is_named_where_it_was_meant(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY.replace("[noise]", "[noise]\nrate = 0.4"))
    with pytest.raises(StudyError, match="noise.rate: 'symmetric' has no such option; did you mean 'rates'?"):
        read_study(tmp_path / "tiny.toml")
