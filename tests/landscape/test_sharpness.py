import math

import pytest
import scipy.optimize
import torch
from torch import nn

from landscape import Objective, sharpness


def quadratic(eigenvalues, slope):
    """L(w) = w . A w + b . w around w = 0 as a mean over two samples, A diagonal."""
    curvature = torch.tensor(eigenvalues, dtype=torch.float64)
    tilt = torch.tensor(slope, dtype=torch.float64)
    model = nn.Linear(len(eigenvalues), 1, bias=False).double()
    nn.init.zeros_(model.weight)
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
