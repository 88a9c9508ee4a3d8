"""Quantities along a training are compared where the runs have the same training loss."""

import numpy as np
import pandas as pd
import pytest

from analysis.claims.effect import CONTRADICTED_HERE, EQUIVALENT_HERE, INCONCLUSIVE, SUPPORTED_HERE
from analysis.claims.equal_loss import with_equal_loss
from analysis.claims.quantities import EQUAL_LOSS, at_equal_loss
from analysis.store import AT_LOSS, LOSS_LEVELS, column_at_loss, flag_at_loss, value_at_loss
from analysis.store.at_loss import columns_at_loss
from tests.analysis.synthetic_study import judged, table, verdict

pytestmark = pytest.mark.usefixtures("quick_judgements")

NOTHING = float("nan")
PAIR, PAIR_HIGHEST = (at_equal_loss("jacobian_trace", level, "pair") for level in ("lowest", "highest"))
SERIES = at_equal_loss("jacobian_trace", "lowest", "series")


def test_between_two_epochs_a_power_of_the_loss_is_read_off_exactly():
    losses = np.array([2.3, NOTHING, 1.1, 0.7, 0.02])
    for level in LOSS_LEVELS[:-1]:
        assert value_at_loss(losses, 5 * losses**-1.7, level) == pytest.approx(5 * level**-1.7)


@pytest.mark.parametrize(
    ("losses", "values"),
    [
        ([0.5, 0.4], [1.0, 1.0]),
        ([2.0, 1.5], [1.0, 1.0]),
        ([NOTHING, NOTHING], [1.0, 1.0]),
        ([2.0, 0.5], [1.0, NOTHING]),
        ([2.0, 0.5], [NOTHING, 1.0]),
        ([2.0, 0.5], [1.0, 0.0]),
    ],
    ids=[
        "low from the start",
        "never so low",
        "not probed",
        "unknown after",
        "unknown before",
        "no logarithm",
    ],
)
def test_what_cannot_be_read_off_at_a_loss_of_1_is_nan(losses, values):
    assert np.isnan(value_at_loss(np.array(losses), np.array(values), 1.0))


def test_a_loss_that_rises_again_is_read_off_at_its_first_fall():
    found = value_at_loss(np.array([2.0, 0.5, 2.0, 0.5]), np.array([3.0, 3.0, 9.0, 9.0]), 1.0)
    assert found == pytest.approx(3.0)


def history(losses, **changed):
    metrics = {f"probe_{name}_observed": 1 / losses for name in AT_LOSS}
    return {
        **metrics,
        "probe_loss_observed": losses,
        "probe_curvature_parts_converged_observed": np.ones(len(losses)),
        **changed,
    }


def test_parts_that_did_not_converge_are_not_read_off():
    losses = np.array([2.3, 1.5, 0.7])
    converged = np.array([1.0, 1.0, 0.0])
    found = columns_at_loss(history(losses, probe_curvature_parts_converged_observed=converged))
    assert found[column_at_loss("jacobian_trace", 1.8)] == pytest.approx(1 / 1.8)
    assert np.isnan(found[column_at_loss("jacobian_trace", 1.0)])


def test_a_run_that_was_not_probed_has_no_such_columns():
    assert columns_at_loss({"train_loss": np.ones(3)}) == {}


def probed(final_losses, decades, kind, seed):
    """SGD runs whose tr J^T J is a power of the training loss, and as many decades more as `decades` says."""
    rng = np.random.default_rng(seed)
    runs = table()
    runs = runs[(runs["method"] == "SGD") & (runs["noise_rate"] > 0)].assign(noise_kind=kind)
    rows = []
    for _, run in runs.iterrows():
        losses = np.geomspace(2.3, final_losses[run["noise_rate"]], 30)
        trace = 1e4 * losses**-2 * 10 ** (decades + 0.005 * rng.normal())
        rows.append({**run, **columns_at_loss(history(losses, probe_jacobian_trace_observed=trace))})
    return pd.DataFrame(rows)


FIXED = {0.2: 0.05, 0.4: 0.05, 0.6: 0.05}
REDRAWN = {0.2: 0.89, 0.4: 1.49, 0.6: 1.89}


@pytest.mark.parametrize(
    ("decades", "expected"), [(-0.5, SUPPORTED_HERE), (0.0, EQUIVALENT_HERE), (0.5, CONTRADICTED_HERE)]
)
def test_what_only_follows_from_the_loss_reached_is_no_effect_of_redrawn_labels(decades, expected):
    fixed = probed(FIXED, 0.0, "symmetric", seed=0)
    redrawn = probed(REDRAWN, decades, "symmetric, redrawn each step", seed=1)
    assert verdict(pd.concat([fixed, redrawn], ignore_index=True), "F4") == expected


def test_the_levels_of_a_pair_are_the_lowest_and_the_highest_that_both_runs_pass():
    runs = pd.concat(
        [
            probed(FIXED, 0.0, "symmetric", seed=0),
            probed(REDRAWN, 0.0, "symmetric, redrawn each step", seed=1),
        ],
        ignore_index=True,
    )
    found = with_equal_loss(runs).groupby("noise_rate")[[PAIR, PAIR_HIGHEST]].mean()
    for rate, lowest in {0.2: 0.9, 0.4: 1.5, 0.6: 1.9}.items():
        assert found.loc[rate, PAIR] == pytest.approx(1e4 * lowest**-2, rel=0.02)
        assert found.loc[rate, PAIR_HIGHEST] == pytest.approx(1e4 * 2.2**-2, rel=0.02)


def test_an_effect_at_low_losses_alone_is_not_enough():
    fixed = probed(FIXED, 0.0, "symmetric", seed=0)
    redrawn = probed(REDRAWN, 0.0, "symmetric, redrawn each step", seed=1)
    low = [column_at_loss("jacobian_trace", level) for level in LOSS_LEVELS if level < 2]
    redrawn[low] /= 10
    assert verdict(pd.concat([fixed, redrawn], ignore_index=True), "F4") != SUPPORTED_HERE


def test_a_run_that_diverged_does_not_raise_the_level_of_the_others():
    runs = probed(FIXED, 0.0, "symmetric", seed=0)
    lost = runs.index[0]
    runs.loc[lost, [name for name in runs if "at_loss_" in name]] = NOTHING
    runs.loc[lost, "diverged"] = True
    found = with_equal_loss(runs)[SERIES]
    assert np.isnan(found[lost])
    np.testing.assert_allclose(found.drop(lost), 1e4 * 0.05**-2, rtol=0.03)


def test_a_table_without_probes_stays_as_it_is():
    runs = table()
    assert list(with_equal_loss(runs)) == list(runs)


@pytest.mark.parametrize("name", ["jacobian_trace", "sharpness"])
def test_a_value_that_did_not_converge_at_the_shared_level_is_lost_and_no_other_level_takes_its_place(name):
    fixed = probed(FIXED, 0.0, "symmetric", seed=0)
    redrawn = probed(REDRAWN, 0.0, "symmetric, redrawn each step", seed=1)
    late = [level for level in LOSS_LEVELS if level < 2.15]
    redrawn[[column_at_loss(name, level) for level in late]] = NOTHING
    redrawn[[flag_at_loss(name, level) for level in late]] = 0.0
    runs = pd.concat([fixed, redrawn], ignore_index=True)
    effects = judged(runs, "F4")["F4"]
    of_name = [
        effect
        for effect in (*effects.effects, *effects.controls)
        if effect.name.startswith(EQUAL_LOSS[name]) and effect.verdict != "not measured"
    ]
    lowest, highest = of_name
    assert (lowest.verdict, lowest.lost, lowest.coverage.not_converged) == (INCONCLUSIVE, 18, 18)
    assert highest.lost == 0


def test_the_flag_of_a_level_says_whether_the_values_beside_it_converged():
    losses = np.array([2.3, 1.5, NOTHING, 0.7])
    converged = np.array([1.0, 1.0, NOTHING, 0.0])
    found = columns_at_loss(history(losses, probe_curvature_parts_converged_observed=converged))
    flags = [found[flag_at_loss("jacobian_trace", level)] for level in (1.8, 1.0, 0.5)]
    np.testing.assert_equal(flags, [1.0, 0.0, NOTHING])
