"""Columns of early training and of the weights' spectra, against values that are known otherwise."""

import h5py
import numpy as np
import pytest

from analysis.store.early_columns import FITTED, early_columns
from analysis.store.weight_columns import tail_index, weight_columns

NOTHING = float("nan")


def history(fitted, memorized, recovered, wrong, **probes):
    """A history in which these shares of right labels are fitted and these of wrong ones memorized and recovered."""
    fitted, memorized, recovered = map(np.asarray, (fitted, memorized, recovered))
    return {
        "train_clean_accuracy": (1 - wrong) * fitted + wrong * recovered,
        "memorized": memorized,
        "recovered": recovered,
        "train_loss": np.linspace(2, 1, len(fitted)),
        **{name: np.asarray(values) for name, values in probes.items()},
    }


def test_early_is_the_first_tenth_of_the_epochs_rounded_up():
    epochs = np.arange(11.0)
    found = early_columns(history(epochs / 20, epochs / 100, epochs / 50, wrong=0.4), 0.4)
    assert found["early_memorized"] == pytest.approx(0.005)
    assert found["early_fitted"] == pytest.approx(0.025)
    assert found["early_recovered"] == pytest.approx(0.01)
    assert found["early_train_loss"] == pytest.approx(1.95)


def test_what_is_memorized_at_equal_fit_is_read_off_between_two_epochs():
    found = early_columns(
        history([0.4, 0.8, 0.9, 0.7, 1.0], [0, 0.1, 0.3, 0.4, 0.5], [0.9] * 5, wrong=0.3), 0.3
    )
    assert FITTED == 0.875
    assert found["memorized_at_fit"] == pytest.approx(0.25)


@pytest.mark.parametrize("fitted", [[0.5, 0.6], [0.95, 0.99]], ids=["never", "from the first epoch on"])
def test_where_the_fit_is_not_reached_between_two_epochs_nothing_is_said(fitted):
    assert np.isnan(
        early_columns(history(fitted, [0.1, 0.2], [0.5, 0.5], wrong=0.2), 0.2)["memorized_at_fit"]
    )


@pytest.mark.parametrize(
    ("converged", "expected"),
    [
        ([0.0, NOTHING, 1.0, 0.0], (4.0, 1.0)),
        ([1.0, NOTHING, 0.0, 1.0], (4.0, 0.0)),
        ([NOTHING, NOTHING, NOTHING, 1.0], (NOTHING, NOTHING)),
    ],
    ids=["only the last early probe counts", "that one did not converge", "not probed early"],
)
def test_the_early_trace_is_that_of_the_last_early_probe_and_says_whether_it_converged(converged, expected):
    long = [0.5] * 30
    later = [NOTHING] * 26
    probes = {
        "probe_trace_observed": [2.0, NOTHING, 4.0, 9.0, *later],
        "probe_trace_converged_observed": [*converged, *later],
    }
    found = early_columns(history(long, long, long, wrong=0.2, **probes), 0.2)
    assert (found["early_trace"], found["early_trace_converged"]) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("exponent", [2.0, 3.5])
def test_the_tail_index_of_a_power_law_is_its_exponent_within_the_error_that_is_stated(exponent):
    rng = np.random.default_rng(0)
    draws = (1 - rng.random((300, 400))) ** (-1 / (exponent - 1))
    found = np.array([tail_index(row) for row in draws])
    assert found[:, 0].mean() == pytest.approx(exponent, rel=0.02)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.1)
    # 95% intervals hold the exponent
    inside = np.abs(found[:, 0] - exponent) < 1.96 * found[:, 1]
    assert 0.91 < inside.mean() < 0.98


def test_a_spectrum_without_a_tail_has_no_index():
    assert np.isnan(tail_index(np.ones(100))).all()
    assert np.isnan(tail_index(np.arange(1.0, 32))).all()
    assert np.isnan(tail_index(np.r_[np.ones(10), np.zeros(90)])).all()


OF_SPECTRA = ("weight_tail_index", "weight_tail_index_error", "weight_norm")


def test_the_weights_are_counted_without_biases_whatever_their_spectra(tmp_path):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        for name, value in {
            "a": np.zeros((4, 5)),
            "b": np.full((2, 3, 3, 3), np.nan),
            "bias": np.zeros(7),
        }.items():
            file[f"weights/{name}"] = value
        assert weight_columns(file)["weight_count"] == 4 * 5 + 2 * 27


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_matrix_of_low_rank_has_no_tail_but_rounding_and_so_no_index(tmp_path, dtype):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["weights/low"] = (rng.normal(size=(64, 10)) @ rng.normal(size=(10, 64))).astype(dtype)
        file["weights/empty"] = np.zeros((0, 5), dtype)
        assert np.isnan([weight_columns(file)[name] for name in OF_SPECTRA]).all()


def test_the_columns_are_of_the_matrices_that_are_large_enough(tmp_path):
    rng = np.random.default_rng(0)
    matrix, kernel = rng.normal(size=(32, 50)), rng.normal(size=(40, 5, 3, 3))
    with h5py.File(tmp_path / "run.h5", "w") as file:
        for name, value in {"a": matrix, "b": kernel, "bias": matrix[0], "outputs": matrix[:10]}.items():
            file[f"weights/{name}"] = value
        found = weight_columns(file)
    flat = kernel.reshape(40, 45)
    indices = [tail_index(np.linalg.eigvalsh(w @ w.T))[0] for w in (matrix, flat)]
    assert found["weight_tail_index"] == pytest.approx(np.mean(indices))
    assert found["weight_norm"] ** 2 == pytest.approx((matrix**2).sum() + (flat**2).sum())


@pytest.mark.parametrize(
    "value",
    [np.zeros((4, 5)), np.full((40, 40), np.nan), np.eye(40, dtype=complex)],
    ids=["too small", "diverged", "complex"],
)
def test_weights_without_a_spectrum_have_no_columns(tmp_path, value):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["weights/a"] = value
        assert np.isnan([weight_columns(file)[name] for name in OF_SPECTRA]).all()
