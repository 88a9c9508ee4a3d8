"""The critical learning rate, on losses whose critical learning rate is known in closed form."""

import math

import pytest
import torch
from torch import nn

from landscape import Objective, critical_sharpness

D = torch.float64


class Weights(nn.Module):
    """A vector of weights; the loss is a function of it."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=D))

    def forward(self, _):
        return self.weights


def objective_of(weights, loss):
    return Objective.of_loss(lambda model, _: loss(model(None)), Weights(weights), (torch.zeros(1, 1),))


def quadratic(eigenvalues, weights):
    values = torch.tensor(eigenvalues, dtype=D)
    return objective_of(weights, lambda w: (values * w.square()).sum() / 2)


@pytest.mark.parametrize("eigenvalue", [1e-4, 0.3, 1.0, 40.0, 1e5])
@pytest.mark.parametrize("learning_rate", [0.01, 1.0])
def test_along_an_eigenvector_it_is_the_eigenvalue(eigenvalue, learning_rate):
    objective = quadratic([eigenvalue, 2.0], [3.0, 0.0])
    update = -learning_rate * objective.gradient()
    found = critical_sharpness(objective, update, learning_rate=learning_rate, guess=1 / eigenvalue)
    assert found.converged
    assert found.low <= 2 / eigenvalue <= found.high <= found.low / 0.9
    assert found.value == pytest.approx(eigenvalue, rel=0.06)
    assert found.steps == pytest.approx(found.learning_rate / learning_rate)


def test_along_a_gradient_it_is_the_curvature_along_the_gradient():
    objective = quadratic([5.0, 1.0, 0.2], [1.0, -2.0, 3.0])
    gradient = objective.gradient()
    curvature = gradient @ objective.hvp(gradient) / gradient.square().sum()
    found = critical_sharpness(objective, -gradient, tol=1e-6, max_passes=60)
    assert found.value == pytest.approx(curvature.item(), rel=1e-5)


@pytest.mark.parametrize("guess", [0.6, 1.3, 2.0, 3.1])
def test_a_good_guess_takes_6_forward_passes_at_most(guess):
    objective = quadratic([1.0], [1.0])
    found = critical_sharpness(objective, -objective.gradient(), guess=guess)
    assert found.converged
    assert found.passes <= 6


def regression(dtype, off, rows=200):
    """A linear regression at this distance from its minimum, its gradient, and the true critical learning rate."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 6, generator=generator)
    targets = inputs @ torch.randn(6, 1, generator=generator) + 0.3 * torch.randn(
        rows, 1, generator=generator
    )
    model = nn.Linear(6, 1, bias=False, dtype=dtype)
    away = torch.randn(6, 1, generator=generator)
    best = torch.linalg.lstsq(inputs.double(), targets.double()).solution
    model.weight.data = (best + off * away).T.to(dtype)
    objective = Objective(model, nn.MSELoss(), (inputs.to(dtype), targets.to(dtype)))
    hessian = 2 * inputs.double().T @ inputs.double() / rows
    slope = hessian @ (model.weight.data.double().T - best)
    update = -objective.gradient()
    step = update.double()
    return objective, update, float(-2 * (slope.T @ step).squeeze() / (step @ hessian @ step))


@pytest.mark.parametrize("off", [1e-1, 1e-2, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("guess", [None, 1e-3, 0.8, 1e3])
@pytest.mark.parametrize(("dtype", "resolved"), [(torch.float32, 1e-2), (D, 1e-6)])
def test_near_a_minimum_the_bounds_hold_or_the_rate_is_not_known(dtype, resolved, off, guess):
    objective, update, truth = regression(dtype, off)
    found = critical_sharpness(objective, update, guess=guess, max_passes=60)
    assert found.low <= 1.001 * truth
    assert found.high >= truth / 1.001
    assert found.converged or off < resolved
    if found.converged:
        assert found.value == pytest.approx(2 / truth, rel=0.07)
    elif not found.low:
        assert math.isnan(found.value)
        assert math.isnan(found.learning_rate)


@pytest.mark.parametrize("slope", [1.0, 1e-2, 1e-4])
def test_in_float32_a_loss_that_rises_at_once_is_told_from_one_whose_fall_is_rounding(slope):
    model = Weights([0.5, 0.5]).to(torch.float32)
    loss = Objective.of_loss(
        lambda each, _: 1 + slope * each.weights.sum() + each.weights.square().sum(), model, (torch.zeros(1),)
    )
    found = critical_sharpness(loss, torch.tensor([0.7, 0.8]))
    assert (found.value, found.learning_rate, found.low) == (math.inf, 0, 0)
    assert not found.converged


@pytest.mark.parametrize("length", [1e-7, 1e-8])
def test_an_update_that_the_rounding_of_the_weights_swallows_tells_nothing(length):
    # a loss of 0 at the minimum has no rounding of its own, but weights of 1 move in steps of 1e-7
    model = Weights([1.0, 1.0]).to(torch.float32)
    loss = Objective.of_loss(
        lambda each, _: (each.weights - 1 - 2 * length).square().sum(), model, (torch.zeros(1),)
    )
    found = critical_sharpness(loss, torch.tensor([length, length]), guess=1.0, max_passes=4)
    assert not found.converged


def test_for_another_loss_it_is_how_far_the_update_may_go_before_that_loss_rises():
    # the observed loss leads from 0 to 2, the clean one is lowest at 1 and back at its first value at 2
    observed = objective_of([0.0], lambda w: (w - 4).square().sum() / 2)
    clean = objective_of([0.0], lambda w: (w - 1).square().sum() / 2)
    update = -observed.gradient()
    assert critical_sharpness(observed, update, tol=0.01).learning_rate == pytest.approx(2.0, rel=0.01)
    assert critical_sharpness(clean, update, tol=0.01).learning_rate == pytest.approx(0.5, rel=0.01)


def test_where_the_loss_rises_at_once_the_sharpness_is_infinite():
    objective = quadratic([1.0], [1.0])
    found = critical_sharpness(objective, objective.gradient())
    assert (found.value, found.learning_rate, found.low) == (math.inf, 0, 0)
    assert not found.converged


def test_where_the_loss_never_rises_the_learning_rate_is_infinite():
    objective = objective_of([0.0], lambda w: -w.sum())
    found = critical_sharpness(objective, torch.ones(1, dtype=D))
    assert (found.value, found.learning_rate) == (0, math.inf)
    assert not found.converged


def test_a_loss_that_is_no_number_counts_as_a_rise():
    objective = objective_of([1.0], lambda w: torch.where(w > -1, -w.log1p().neg(), math.nan).sum())
    found = critical_sharpness(objective, -torch.ones(1, dtype=D), tol=0.01)
    assert found.learning_rate == pytest.approx(2.0, rel=0.01)


def test_a_loss_that_is_no_number_at_the_weights_gives_none():
    objective = objective_of([math.nan], lambda w: w.sum())
    assert math.isnan(critical_sharpness(objective, torch.ones(1, dtype=D)).value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"guess": -1.0}, "guess"),
        ({"tol": 1.0}, "tol"),
        ({"max_passes": 2}, "max_passes"),
        ({"update": torch.zeros(1, dtype=D)}, "update"),
    ],
)
def test_an_argument_out_of_range_is_named(options, field):
    objective = quadratic([1.0], [1.0])
    arguments = {"update": torch.ones(1, dtype=D), **options}
    with pytest.raises(ValueError, match=f"^{field}:"):
        critical_sharpness(objective, **arguments)
