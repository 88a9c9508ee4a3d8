import math

import pytest
import scipy.optimize
import torch
from torch import nn

from landscape import Objective, sharpness
from tests.conftest import build


def quadratic(eigenvalues, slope, weights=None):
    """L(w) = w . A w + b . w around w = 0, or other weights, as a mean over two samples, A diagonal."""
    curvature = torch.tensor(eigenvalues, dtype=torch.float64)
    tilt = torch.tensor(slope, dtype=torch.float64)
    model = nn.Linear(len(eigenvalues), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights or [0.0] * len(eigenvalues)], dtype=torch.float64))
    eye = torch.eye(len(eigenvalues), dtype=torch.float64)

    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(eye).T.expand(len(x), -1)

    def loss_fn(outputs, _):
        return ((outputs.square() * curvature).sum(1) + (outputs * tilt).sum(1)).mean()

    return Objective(Weights(), loss_fn, (torch.zeros(2, 1), torch.zeros(2)))


def largest_rise(eigenvalues, slope, rho):
    """The trust-region maximum: (mu - 2 A) e = b on the sphere, mu >= 2 max(A) (closed form)."""
    top = 2 * max(eigenvalues)

    def excess(mu):
        return math.sqrt(sum((b / (mu - 2 * a)) ** 2 for a, b in zip(eigenvalues, slope, strict=True))) - rho

    mu = scipy.optimize.brentq(excess, top + 1e-9, top + 1e3, xtol=1e-14)
    point = [b / (mu - 2 * a) for a, b in zip(eigenvalues, slope, strict=True)]
    return sum(a * e**2 + b * e for a, b, e in zip(eigenvalues, slope, point, strict=True))


@pytest.mark.parametrize("rho", [0.1, 1.0, 3.0])
def test_reaches_the_trust_region_maximum_of_a_quadratic_from_below(rho):
    eigenvalues, slope = [3.0, 1.0, -2.0], [0.2, 0.5, 0.3]
    truth = largest_rise(eigenvalues, slope, rho)
    found = sharpness(quadratic(eigenvalues, slope), rho=rho, steps=60, restarts=2)
    assert found.value <= truth * (1 + 1e-12)
    assert found.value == pytest.approx(truth, rel=1e-3)
    assert found.one_step <= found.value


@pytest.mark.parametrize("rho", [0.1, 1.0])
def test_in_a_box_the_maximum_of_a_convex_quadratic_is_at_a_corner(rho):
    eigenvalues, slope = [3.0, 1.0, 2.0], [0.2, -0.5, 0.3]
    found = sharpness(quadratic(eigenvalues, slope), rho=rho, norm="linf", steps=20)
    truth = sum(a * rho**2 + abs(b) * rho for a, b in zip(eigenvalues, slope, strict=True))
    assert found.value == pytest.approx(truth, rel=1e-9)
    assert found.one_step == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_relative_to_the_weights_it_is_that_of_the_rescaled_quadratic(norm):
    """With T = |theta| the loss in u is a quadratic with T A T and T (slope at theta)."""
    weights = torch.tensor([2.0, -0.5, 1.0], dtype=torch.float64)
    curvature = torch.tensor([1.0, 4.0, 0.5], dtype=torch.float64)
    objective = quadratic(curvature.tolist(), [0.3, 0.2, 0.1], weights=weights.tolist())
    slope = 2 * curvature * weights + torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64)
    scaled = quadratic((curvature * weights**2).tolist(), (slope * weights.abs()).tolist())
    options = {"rho": 0.3, "norm": norm, "steps": 30}
    found = sharpness(objective, adaptive="elementwise", **options)
    truth = sharpness(scaled, **options)
    assert found.value == pytest.approx(truth.value, rel=1e-9)
    # ASAM's step: rho T^2 g / ||T g||, or rho T sign(T g)
    assert found.one_step == pytest.approx(truth.one_step, rel=1e-9)


def test_the_one_step_of_the_adaptive_ball_is_asams():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    gradient, scale = objective.gradient(), objective.theta.abs()
    step = 0.5 * scale**2 * gradient / (scale * gradient).norm()
    found = sharpness(objective, rho=0.5, adaptive="elementwise", steps=1)
    assert found.one_step == pytest.approx(objective.value(objective.theta + step) - objective.value())


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("adaptive", ["elementwise", "filter"])
def test_adaptive_sharpness_is_unmoved_by_rescaling_a_relu_network(adaptive, norm):
    found = []
    for factor in (1.0, 5.0):
        model, inputs, targets = build("relu-mlp")
        with torch.no_grad():
            for parameter in model[1].parameters():
                parameter.mul_(factor)
            model[3].weight.div_(factor)
        objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
        options = {"rho": 0.2, "adaptive": adaptive, "norm": norm}
        found.append(sharpness(objective, steps=5, restarts=1, **options).value)
    assert found[0] == pytest.approx(found[1], rel=1e-8)


def test_what_each_start_has_found_is_kept():
    found = sharpness(quadratic([4.0, 1.0], [0.1, 0.0]), rho=0.5, restarts=3)
    assert len(found.starts) == 4
    assert found.value == found.starts.max()


def test_at_a_minimum_random_starts_find_the_top_eigenvector():
    found = sharpness(quadratic([4.0, 1.0], [0.0, 0.0]), rho=0.5, steps=40)
    assert found.one_step == 0
    assert found.value == pytest.approx(4 * 0.25, rel=1e-3)


def test_the_gradients_spent_are_counted():
    found = sharpness(quadratic([1.0, 1.0], [1.0, 0.0]), rho=0.5, steps=4, restarts=2)
    assert found.gradients == 1 + 3 * 4


def test_nan_is_reported():
    found = sharpness(quadratic([float("nan"), 1.0], [1.0, 0.0]), rho=0.5)
    assert math.isnan(found.value)


@pytest.mark.parametrize(
    ("options", "field"), [({"rho": 0}, "rho"), ({"kind": "mean"}, "kind"), ({"steps": -1}, "steps")]
)
def test_bad_arguments_are_named(options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        sharpness(quadratic([1.0], [1.0]), **options)
