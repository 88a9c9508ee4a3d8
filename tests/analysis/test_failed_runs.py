"""A run that failed is lost and named; a run that is not done yet is missing, and said so."""

import shutil

import numpy as np
import pandas as pd
import pytest

from analysis import cli, store
from analysis.claims.effect import INCONCLUSIVE, SUPPORTED_HERE
from tests.analysis.synthetic_study import judged, table

pytestmark = pytest.mark.usefixtures("quick_judgements")


def with_rows_without_numbers(runs, is_failed):
    """The table in which some runs failed: they have no number, but are known to be planned."""
    identity = ["dataset", "noise_kind", "noise_rate", "method", "seed", "method_name", "loss", "mixup"]
    kept = [*identity, "label_smoothing", "candidates", "classes", "hyperparameters", "tuned", "diverged"]
    found = runs.assign(failed=is_failed)
    numbers = [name for name in runs if name not in kept]
    found[numbers] = found[numbers].astype(float).mask(is_failed, np.nan)
    return found


@pytest.mark.parametrize(
    ("claim", "method"), [("G1", "NCSAM"), ("M1", "SGD"), ("L1", "SGD"), ("A1", "flip 0.3"), ("T1", "SAM")]
)
def test_a_run_that_failed_is_lost_and_named_by_every_kind_of_comparison(claim, method):
    runs = table(seeds=7)
    one = (runs["method"] == method) & (runs["noise_rate"] == 0.6) & (runs["seed"] == 3)
    judgement = judged(with_rows_without_numbers(runs, one), claim)[claim]
    assert judgement.verdict == INCONCLUSIVE
    assert f"{method}, d, symmetric 60%, seed 3: failed" in judgement.missing


def test_runs_that_fail_because_of_their_outcome_support_nothing():
    runs = table(noise=0.05, quality={"SAM": 0.0, "NCSAM": 0.0})
    low = (runs["method"] == "NCSAM") & (runs["test_accuracy"] < 0.6)
    assert low.any()
    (effect, *_) = judged(with_rows_without_numbers(runs, low), "G1")["G1"].effects
    assert (effect.verdict, effect.lost) == (INCONCLUSIVE, int(low.sum()))


def test_a_run_that_is_not_done_yet_is_missing_and_not_lost():
    runs = table(seeds=7).query("not (method == 'NCSAM' and noise_rate == 0.6 and seed == 3)")
    judgement = judged(runs, "G1")["G1"]
    assert (judgement.verdict, judgement.missing) == (
        SUPPORTED_HERE,
        ["NCSAM, d, symmetric 60%, seed 3: no run"],
    )


RUN = "runs/digits/symmetric-0.4/ncsam/seed0.h5"


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished[1], tmp_path / "out")
    (tmp_path / "out" / RUN).unlink()
    # which claims are judged does not matter here
    study = (tmp_path / "out/study.toml").read_text()
    (tmp_path / "out/study.toml").write_text(f'claims = ["G1"]\n{study}')
    return tmp_path / "out"


def printed(capsys, *arguments):
    assert cli.main([*map(str, arguments)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_run_without_a_file_is_told_from_one_that_failed(out):
    state = store.unfinished(out)
    assert ([run.path for run in state.missing], state.failed) == ([RUN], [])
    store.write_failure(out / RUN, "ValueError: too steep")
    state = store.unfinished(out)
    assert ([run.path for run, _ in state.failed], state.missing) == ([RUN], [])


def test_the_row_of_a_failed_run_says_which_method_it_is_of(out, finished):
    store.write_failure(out / RUN, "ValueError: too steep")
    runs = store.with_failed(store.read_tables([out]), [store.unfinished(out)])
    (failed,) = runs[runs["failed"]].to_dict("records")
    whole = store.read_table(finished[1])
    (before,) = whole[
        (whole["method"] == "NCSAM") & (whole["noise_rate"] == 0.4) & (whole["seed"] == 0)
    ].to_dict("records")
    for name in (
        "dataset",
        "noise_kind",
        "noise_rate",
        "seed",
        "method_name",
        "loss",
        "candidates",
        "changed",
    ):
        assert failed[name] == before[name]
    assert pd.isna(failed["test_accuracy"])
    assert not failed["diverged"]


@pytest.mark.parametrize("command", ["results", "claims"])
def test_commands_tell_runs_that_failed_from_runs_that_are_not_done(out, capsys, command):
    told = printed(capsys, command, out)
    assert f"runs of {out}, not done yet: run the study on (NCSAM symmetric 40% seed 0)" in told
    store.write_failure(out / RUN, "ValueError: too steep")
    told = printed(capsys, command, out)
    assert "failed: NCSAM symmetric 40% seed 0: ValueError: too steep" in told
    assert "not done yet" not in told


def test_a_run_of_whose_selection_a_trial_failed_has_failed(out):
    trial, *_ = sorted((out / "selection/digits/symmetric-0.4").rglob("seed*.h5"))
    trial.unlink()
    assert store.unfinished(out).failed == []
    store.write_failure(trial, "ValueError: too steep")
    assert [(run.path, error) for run, error in store.unfinished(out).failed] == [
        (RUN, "a run of its selection failed")
    ]
