"""Every number of the table that a search or random probes found has a flag, which claims respect."""

import re

import pandas as pd
import pytest

from analysis.claims.quantities import QUANTITIES, quantity
from analysis.store import flags_of, scalars
from analysis.store.row import PARTS, TEXTS
from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.training import METRICS
from tests.analysis.test_results_page import EVERYTHING
from tests.analysis.tiny_study import TINY, run_tiny

LOSSES = "(observed|clean)"
WITHOUT_SEARCH = (
    *("noise_rate", "seed", "diverged", "epochs", "classes", "label_smoothing", "mixup", "candidates"),
    *("realised_noise_rate", "train_samples", "weight_count"),
    # means, shares and the best of what single passes over the data give
    *METRICS,
    *ALIGNMENT_METRICS,
    r"best_(test_accuracy|epoch|recovered)",
    r"early_(memorized|fitted|recovered|train_loss)|memorized_at_fit",
    rf"mean_(probe_)?({'|'.join(ALIGNMENT_METRICS)})|mean_perturbation_norm",
    r"mean_probe_(perturbed_)?gradient_\w+|mean_probe_damping_\w+",
    rf"mean_probe_(loss|accuracy|gradient_norm|gradient_noise|noise_scale)_{LOSSES}",
    r"gradient_(norm|noise)_observed|stability_edge|descent_edge|weight_norm|weight_tail_index",
    # 8 probes of each sample, as many as asked for
    r"(loss|gradient_norm|gauss_newton_trace|input_curvature)_auroc(_at_equal_loss)?",
    # formulas, and means of as many draws as asked for
    r"bound_\w+_(clean_loss|sampling|complexity|rho)|assumption_\w+_gap",
    rf"sharpness_(one_step|rho)_{LOSSES}",
)
"""Columns of numbers that no search found."""
OF_THE_SEARCH = (
    rf"\w*_(standard_error|error|residual|spread|products|passes|low|high)(_{LOSSES})?",
    r"mean_probe_trace_of_.+_error_\w+",
    rf".*_converged(_.+)?|critical_learning_rate_found_{LOSSES}",
)
"""What is known of a search: errors, costs and the flags themselves."""


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """The row of a run in which everything is measured."""
    folder = tmp_path_factory.mktemp("flags")
    text = TINY.replace("seeds = [0, 1]", "seeds = [0]")
    for old, new in EVERYTHING:
        text = text.replace(old, new, 1)
    measures = '"loss", "trace", "layer_traces", "critical_sharpness", "curvature_parts", '
    text = text.replace(
        "probe_epochs = [1]", f'probe_epochs = [1, 2]\nprobe_measures = [{measures}"gradient_noise"]'
    )
    outcome, _ = run_tiny(folder, folder / "out", text)
    assert not outcome.failed
    return scalars(folder / "out/runs/digits/symmetric-0.4/ncsam/seed0.h5")


def is_one_of(column, patterns):
    return any(re.fullmatch(pattern, column) for pattern in patterns)


def searched(row):
    """The columns of numbers that a search or random probes found."""
    return [
        column
        for column in row
        if column not in TEXTS and not is_one_of(column, WITHOUT_SEARCH + OF_THE_SEARCH)
    ]


def test_every_number_that_a_search_found_has_a_flag_in_the_table(row):
    found = searched(row)
    assert {f"{part}_wrong" for part in PARTS} <= set(found)
    assert [column for column in found if not set(flags_of(column)) & set(row)] == []


def test_claims_use_no_number_whose_flag_is_below_1(row):
    for column in searched(row):
        flag = next(name for name in flags_of(column) if name in row)
        runs = pd.DataFrame({column: [1.0, 1.0, 1.0], flag: [1.0, 0.75, 0.0], "diverged": False})
        assert quantity(column).values(runs).notna().tolist() in ([True, False, False], [True, True, True])
        lower_bound = column in QUANTITIES and QUANTITIES[column].lower_bound
        assert quantity(column).values(runs).notna().all() == lower_bound


def test_a_mean_over_probes_of_which_one_did_not_converge_is_not_used():
    runs = pd.DataFrame(
        {"mean_probe_trace_observed": [2.0, 3.0], "mean_probe_trace_converged_observed": [1.0, 0.75]}
    )
    what = quantity("mean_probe_trace_observed")
    assert what.values(runs).notna().tolist() == [True, False]
    assert what.lacks(runs.iloc[1:]) == "values that converged; 1 of 1 runs not converged"


def test_a_critical_rate_of_0_is_known_without_bounds():
    runs = pd.DataFrame(
        {
            "critical_learning_rate_observed": [0.0, 0.3, 0.3],
            "critical_learning_rate_found_observed": [0.0, 0.0, 1.0],
        }
    )
    found = quantity("critical_learning_rate_observed").values(runs)
    assert found.notna().tolist() == [True, False, True]
