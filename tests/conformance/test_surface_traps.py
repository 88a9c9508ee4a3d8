"""Traps of the peers in surfaces: each case gives a wrong coordinate, a wrong direction or a false number in one."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from landscape import Objective, filter_normalized_directions, line, surface
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()


def bowl(a=1.0, b=3.0):
    """L = a (x - 0.2)^2 + b (y + 0.1)^2 + 0.5 of two weights, at (0, 0), and its two axes."""

    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))

        def forward(self, x):
            return self.weight.T.expand(len(x), -1)

    def loss_fn(z, _):
        return (a * (z[:, 0] - 0.2) ** 2 + b * (z[:, 1] + 0.1) ** 2 + 0.5).mean()

    eye = torch.eye(2, dtype=torch.float64)
    return Objective(Weights(), loss_fn, (torch.zeros(3, 1), torch.zeros(3))), (eye[0], eye[1])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("steps", [(5, 5), (6, 4), (4, 7), (41, 20)])
@pytest.mark.parametrize("extent", [(1.0, 1.0), (0.5, 2.0)])
def test_coordinates_are_the_true_multiples_on_both_axes(steps, extent, adaptive):
    """loss-landscapes and landscaper sit half a cell off, and label -0.5..+0.5 what runs to 0.45."""
    objective, axes = bowl()
    plane = surface(objective, axes, steps=steps, extent=extent, adaptive=adaptive)
    for axis, end, count in zip((plane.alpha, plane.beta), extent, steps, strict=True):
        np.testing.assert_allclose(axis, np.linspace(-end, end, count), rtol=1e-14)
    truth = (plane.alpha[:, None] - 0.2) ** 2 + 3 * (plane.beta[None] + 0.1) ** 2 + 0.5
    # between evaluated points the error is allowed to be 1% of the range, and 5% of the loss
    np.testing.assert_allclose(plane.loss, truth, rtol=0.05 if adaptive else 1e-14)
    assert np.abs(plane.loss - truth).max() <= 0.01 * np.ptp(truth)
    assert plane.center_loss == pytest.approx(0.57)
    if all(count % 2 for count in steps):
        middle = tuple(count // 2 for count in steps)
        assert plane.loss[middle] == plane.center_loss


def test_a_larger_extent_goes_further():
    """landscaper's and loss-landscapes' distance acts inversely with the steps, or not as labeled."""
    objective, axes = bowl()
    near, far = (line(objective, axes[0], extent=extent, steps=3) for extent in (1.0, 2.0))
    assert far.loss[2] == pytest.approx((2 - 0.2) ** 2 + 3 * 0.01 + 0.5)
    assert near.loss[2] == pytest.approx((1 - 0.2) ** 2 + 3 * 0.01 + 0.5)


def test_the_largest_value_is_what_it_is():
    """landscaper adds noise to the maximum."""
    objective, axes = bowl()
    first, second = (surface(objective, axes, steps=5).loss for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.max() == pytest.approx((-1 - 0.2) ** 2 + 3 * 1.1**2 + 0.5, rel=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("adaptive", [False, True])
def test_what_is_no_number_stays_so(value, adaptive):
    """landscaper and pylandscape store NaN as the mean, and inf as a number."""
    objective, axes = bowl()
    inner = objective.loss_fn
    objective.loss_fn = lambda z, y: torch.where(z[0, 0] > 0.6, value, inner(z, y))
    plane = surface(objective, axes, steps=21, adaptive=adaptive)
    beyond = np.broadcast_to(plane.alpha[:, None] > 0.6, plane.loss.shape)
    np.testing.assert_array_equal(plane.loss[beyond], value)
    assert np.isfinite(plane.loss[~beyond]).all()


def test_the_model_is_moved_for_the_points_and_not_for_the_user():
    """pylandscape never moves it, loss-landscapes leaves it displaced and frozen."""
    model, inputs, targets = build("mlp")
    before = [p.clone() for p in model.parameters()]
    objective = Objective(model, cross_entropy, (inputs, targets))
    plane = surface(objective, filter_normalized_directions(objective, 2), steps=3)
    assert np.ptp(plane.loss) > 0.1
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_filter_norms_are_those_of_the_model_and_the_directions_two():
    """loss-landscapes is uniform on [0, 1]; landscaper's and losscape's ratios are 0.6 to 90; pylandscape has one."""
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = filter_normalized_directions(objective, 2)
    weight = model[0].weight.detach()
    for column in directions.vectors.T:
        filters = objective.unflatten(column.contiguous())["0.weight"]
        ratios = filters.flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(ratios, torch.ones_like(ratios))
        assert filters.min() < 0 < filters.max()
    assert abs(directions.cosines[0, 1]) < 0.5


def test_a_grid_that_is_not_square_is_not_scrambled():
    """tomgoldstein/loss-landscape scrambles it, and refuses an axis that begins at 0."""
    objective, axes = bowl()
    plane = surface(objective, axes, alpha=[0.0, 0.2, 0.7], beta=[-0.1, 0.0])
    truth = (plane.alpha[:, None] - 0.2) ** 2 + 3 * (plane.beta[None] + 0.1) ** 2 + 0.5
    np.testing.assert_allclose(plane.loss, truth, rtol=1e-14)
    assert plane.loss.argmin() == 2


@pytest.mark.parametrize("computed", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_filters_of_a_transposed_convolution_are_those_of_its_outputs_where_its_weights_are_computed(
    computed,
):
    torch.manual_seed(0)
    model = computed(nn.ConvTranspose1d(3, 4, 3))
    objective = Objective(model, nn.MSELoss(), (torch.randn(6, 3, 5), torch.randn(6, 4, 7)))
    (name,) = [
        name for name, shape in zip(objective.names, objective.shapes, strict=True) if shape == (3, 4, 3)
    ]
    direction = filter_normalized_directions(objective, 1).vectors[:, 0]
    norms = [objective.unflatten(each)[name].norm(dim=(0, 2)) for each in (direction, objective.theta)]
    torch.testing.assert_close(*norms)
