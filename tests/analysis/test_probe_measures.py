"""A study's `probe_measures`: what a tracker measures, at the probed epochs."""

import h5py
import numpy as np
import pytest

from analysis.objectives import objective_of
from analysis.plan.reading import read_study
from analysis.store import LOSS_LEVELS, column_at_loss, scalars
from tests.analysis.tiny_study import TINY, run_tiny

PROBED = TINY.replace(
    "epochs = 3",
    """epochs = 3
probe_epochs = [1, 3]
probe_samples = 40
probe_measures = ["loss", "trace", "layer_traces", "gradient_noise", "critical_sharpness", "curvature_parts"]""",
).replace("seeds = [0, 1]", "seeds = [0]")


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """The folder of the study, and the number of objectives that its probes made."""
    folder, made = tmp_path_factory.mktemp("probed"), []

    def counted(*arguments):
        made.append(objective_of(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("analysis.run.probes.objective_of", counted)
        run_tiny(folder, folder / "out", PROBED)
    return folder / "out", len(made)


def test_an_objective_is_made_once_for_each_loss_and_probed_epoch(probed):
    assert probed[1] == 2 * 2


def test_they_are_in_the_history_of_both_losses_at_the_probed_epochs(probed):
    for path in probed[0].rglob("seed0.h5"):
        with h5py.File(path) as file:
            history = {
                name: file["history"][name][:] for name in file["history"] if name.startswith("probe_")
            }
            assert "true labels" in file["history/probe_trace_clean"].attrs["description"]
            assert {f"probe_trace_of_{name}_observed" for name in file["weights"]} <= history.keys()
        for loss in ("observed", "clean"):
            at = [0, 2]
            assert np.isnan(history[f"probe_trace_{loss}"][1])
            assert (history[f"probe_gradient_noise_{loss}"][at] > 0).all()
            low, high = history[f"probe_trace_low_{loss}"][at], history[f"probe_trace_high_{loss}"][at]
            assert (
                (low < history[f"probe_trace_{loss}"][at]) & (history[f"probe_trace_{loss}"][at] < high)
            ).all()
        # a gradient step on the observed labels lowers their own loss at first
        rate = history["probe_critical_learning_rate_observed"][[0, 2]]
        assert (rate > 0).all()
        np.testing.assert_allclose(history["probe_critical_sharpness_observed"][[0, 2]], 2 / rate)


def test_the_table_holds_the_parts_of_curvature_at_the_levels_that_the_loss_passed(probed):
    for path in probed[0].rglob("seed0.h5"):
        with h5py.File(path) as file:
            losses, traces = (
                file["history"][f"probe_{name}_observed"][[0, 2]] for name in ("loss", "jacobian_trace")
            )
            assert (file["history/probe_curvature_parts_converged_observed"][[0, 2]] == 1).all()
        row = scalars(path)
        passed = [level for level in LOSS_LEVELS if losses[1] <= level < losses[0]]
        for level in LOSS_LEVELS:
            found = row[column_at_loss("jacobian_trace", level)]
            assert min(traces) <= found <= max(traces) if level in passed else np.isnan(found)


def test_an_unknown_one_is_refused(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(PROBED.replace('"trace"', '"traces"'))
    with pytest.raises(ValueError, match="probe_measures"):
        read_study(path)
