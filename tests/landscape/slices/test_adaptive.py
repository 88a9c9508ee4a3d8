"""A refined surface is within its tolerance of the full grid, and says so."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, random_directions, surface, surfaces
from landscape.evaluation.evaluator import Values
from landscape.slices.adaptive import refined
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()
AXIS = np.linspace(-1, 1, 51)
ALPHA, BETA = np.meshgrid(AXIS, AXIS, indexing="ij")

FUNCTIONS = {
    "bowl": 0.1 + ALPHA**2 + 3 * BETA**2,
    "valley": np.exp(2 * (ALPHA + BETA)) + 20 * (ALPHA - BETA) ** 2,
    "walls": np.log1p(np.exp(12 * (ALPHA**2 + 0.5 * BETA**2 - 0.4))),
    "two basins": 1 - np.exp(-8 * ((ALPHA - 0.5) ** 2 + BETA**2)) - 0.7 * np.exp(-6 * (ALPHA + 0.5) ** 2),
    "steep corner": np.exp(5 * (ALPHA + BETA)),
}


def refine(loss, tolerance=0.01):
    axis = np.linspace(-1, 1, len(loss))

    def evaluate(multiples, _):
        rows = [np.abs(axis - m).argmin() for m in multiples[:, 0]]
        columns = [np.abs(axis - m).argmin() for m in multiples[:, 1]]
        values = loss[rows, columns][:, None]
        return Values(values, np.full_like(values, np.nan), None, None)

    found = refined(evaluate, (axis, axis), tolerance, lambda *_: None)
    return found.values.loss[:, 0].reshape(loss.shape), found.errors


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_fifth_of_the_points_gives_all_within_one_percent_of_the_range(name):
    truth = FUNCTIONS[name]
    found, errors = refine(truth)
    error = np.abs(found - truth)
    assert error.max() <= 0.01 * np.ptp(truth)
    assert errors.evaluated.sum() <= 51 * 51 / 5
    assert errors.loss.max() <= 0.01 * np.ptp(truth)
    # the largest error is no more than the largest that was foreseen
    assert error.max() <= errors.loss.max()


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 9)[1:-1])
def test_the_tolerance_is_kept_whichever_way_two_basins_lie(angle):
    x, y = ALPHA * np.cos(angle) + BETA * np.sin(angle), BETA * np.cos(angle) - ALPHA * np.sin(angle)
    truth = 1 - np.exp(-8 * ((x - 0.4) ** 2 + y**2)) - 0.7 * np.exp(-6 * (x + 0.6) ** 2)
    found, errors = refine(truth)
    assert np.abs(found - truth).max() <= min(0.01 * np.ptp(truth), errors.loss.max())


def test_a_smaller_tolerance_takes_more_points_and_is_kept():
    truth = FUNCTIONS["two basins"]
    coarse, fine = refine(truth, 0.05), refine(truth, 0.002)
    assert coarse[1].evaluated.sum() < fine[1].evaluated.sum()
    assert np.abs(fine[0] - truth).max() <= 0.002 * np.ptp(truth)


def test_a_rough_surface_is_evaluated_in_full():
    truth = np.random.default_rng(0).uniform(1, 2, (21, 21))
    found, errors = refine(truth)
    assert errors.evaluated.all()
    np.testing.assert_array_equal(found, truth)


def test_what_is_not_finite_is_found_and_never_interpolated():
    truth = FUNCTIONS["bowl"].copy()
    truth[ALPHA + BETA > 1.3] = np.inf
    truth[ALPHA - BETA > 1.5] = np.nan
    found, _ = refine(truth)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(truth))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(truth))
    finite = np.isfinite(truth)
    assert np.abs(found[finite] - truth[finite]).max() <= 0.01 * np.ptp(truth[finite])


def test_a_point_that_is_not_finite_leaves_the_tolerance_of_the_others():
    truth = 1000 + np.sin(9 * ALPHA) * np.cos(7 * BETA)
    truth[-1, -1] = np.nan
    found, _ = refine(truth)
    finite = np.isfinite(truth)
    assert np.abs(found - truth)[finite].max() <= 0.01 * np.ptp(truth[finite])


@pytest.mark.parametrize(
    "finite", [ALPHA < -0.99, ALPHA == 0, ALPHA == BETA, (ALPHA == 0) | (ALPHA * BETA == 1)]
)
def test_where_only_points_on_a_line_are_finite_all_are_evaluated(finite):
    truth = np.where(finite, 1 + BETA**2, np.nan)
    found, errors = refine(truth)
    assert errors.evaluated.all()
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize(("a", "b"), [(0.12, 0.12), (0.6, 0.1), (-0.12, -0.36)])
def test_the_bottom_of_a_basin_between_evaluated_points_is_evaluated_not_cut_off(a, b):
    truth = 0.5 + (ALPHA - a) ** 2 + 3 * (BETA - b) ** 2
    found, errors = refine(truth, 0.05)
    # such a bowl takes hardly more than the first points, and is interpolated to better than the tolerance
    assert errors.evaluated.sum() < 100
    assert np.abs(found - truth).max() <= 0.002 * np.ptp(truth)
    assert found.min() == pytest.approx(truth.min(), rel=1e-12)


def test_no_value_is_filled_in_beyond_the_evaluated_ones():
    loss = np.log1p(np.exp(30 * (ALPHA**2 + BETA - 0.3)))
    accuracy = (BETA < 0.3 - ALPHA**2).astype(float)

    def evaluate(multiples, _):
        index = tuple(np.abs(AXIS[:, None] - multiples[:, k]).argmin(0) for k in (0, 1))
        columns = [values[index][:, None] for values in (loss, accuracy, loss / 30, loss / 60)]
        return Values(*columns)

    found = refined(evaluate, (AXIS, AXIS), 0.05, lambda *_: None)
    assert not found.errors.evaluated.all()
    for values in (
        found.values.loss,
        found.values.accuracy,
        found.values.loss_error,
        found.values.rise_error,
    ):
        known = values[found.errors.evaluated]
        assert known.min() == values.min()
        assert known.max() == values.max()


@pytest.mark.parametrize("value", [0.3, np.nan])
def test_a_constant_surface(value):
    found, errors = refine(np.full((21, 21), value))
    np.testing.assert_allclose(found, value, equal_nan=True)
    assert errors.evaluated.all() == np.isnan(value)


@pytest.mark.parametrize("name", ["relu-mlp", "cnn-batchnorm-dropout"])
def test_surfaces_of_networks_are_within_one_percent_of_the_full_grid(name):
    model, inputs, targets = build(name)
    objectives = {
        "observed": Objective(model, cross_entropy, (inputs, targets)),
        "clean": Objective(model, cross_entropy, (inputs, (targets + 1) % 3)),
    }
    directions = random_directions(objectives["observed"], 2)
    full = surfaces(objectives, directions)
    found = surfaces(objectives, directions, adaptive=True)
    for loss in objectives:
        truth, part = full[loss], found[loss]
        spread = np.ptp(truth.loss)
        assert np.abs(part.loss - truth.loss).max() <= 0.01 * spread
        assert part.evaluations == part.evaluated.sum() <= 51 * 51 / 5
        assert part.loss_interpolation_error.max() <= 0.01 * spread
        # evaluated points in other blocks may differ in rounding
        np.testing.assert_allclose(part.loss[part.evaluated], truth.loss[part.evaluated], rtol=1e-12)
        assert part.loss[25, 25] == part.center_loss
        error = np.abs(part.accuracy - truth.accuracy)
        assert error.max() <= 3 * part.accuracy_interpolation_error.max()


def test_axes_of_few_uneven_points_work():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = random_directions(objective, 2)
    options = {"alpha": [-1.0, 0.0, 0.1, 2.0], "beta": [0.5, 1.0]}
    found, full = (surface(objective, directions, adaptive=a, **options) for a in (True, False))
    np.testing.assert_allclose(found.loss, full.loss, rtol=1e-12)


def test_progress_grows_with_what_is_asked_for():
    objective = Objective(
        nn.Linear(3, 2), cross_entropy, (torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 0, 1, 1, 0]))
    )
    seen = []
    surface(objective, random_directions(objective, 2), adaptive=True, progress=lambda *p: seen.append(p))
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == seen[-1][1]
