import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import nn

from landscape import Objective, average_sharpness, sharpness, sharpness_profile, top_eigenvalues
from landscape.perturbations.ascent import Neighborhood
from landscape.perturbations.relative_scale import scale_of
from landscape.perturbations.search import IN_A_ROW
from landscape.perturbations.secant_model import largest_in_ball
from tests.conftest import build, rescaled_relu_network
from tests.landscape.perturbations.exhaustive_ascents import exhaustive


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
            # no columns (n, k), so that no direction of an output is a start
            return self.inner(eye).T[None].expand(len(x), 1, -1)

    def loss_fn(outputs, _):
        return ((outputs.square() * curvature).sum(2) + (outputs * tilt).sum(2)).mean()

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
    options = {"rho": 0.3, "norm": norm, "tol": 1e-6}
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
        objective = Objective(*rescaled_relu_network(factor))
        options = {"rho": 0.2, "adaptive": adaptive, "norm": norm}
        found.append(sharpness(objective, steps=5, restarts=1, **options).value)
    assert found[0] == pytest.approx(found[1], rel=1e-8)


def test_the_highest_of_all_starts_is_kept_with_what_each_has_found():
    found = sharpness(quadratic([4.0, 1.0, -3.0], [0.0, 0.1, 0.2]), rho=0.5, restarts=3)
    # the gradient, three eigenvectors in both directions, and at most three further starts
    assert found.directions == 3
    assert 7 <= len(found.starts) == len(found.gaps) <= 10
    assert found.value == found.starts.max()


def test_at_a_minimum_random_starts_find_the_top_eigenvector():
    found = sharpness(quadratic([4.0, 1.0], [0.0, 0.0]), rho=0.5)
    assert found.one_step == 0
    assert found.value == pytest.approx(4 * 0.25, rel=1e-3)
    assert found.converged


def test_the_gradients_spent_are_counted():
    objective = quadratic([1.0, 1.0], [1.0, 0.0])
    found = sharpness(objective, rho=0.5, steps=4, restarts=2)
    # the gradient, two eigenvectors in both directions, and two further starts
    assert found.gradients == objective.gradients <= 1 + 7 * 4


def test_nan_is_reported():
    found = sharpness(quadratic([float("nan"), 1.0], [1.0, 0.0]), rho=0.5)
    assert math.isnan(found.value)
    assert not found.converged


SPECTRA = {
    "one": np.r_[1.0, np.zeros(199)],
    "decaying": 1 / np.arange(1.0, 201),
    "flat": np.linspace(0, 1, 200),
    "outliers": np.r_[np.linspace(5, 10, 10), np.linspace(0, 1, 190)],
    "two close ones": np.r_[1.0, 0.999, np.linspace(-0.2, 0.2, 198)],
    "half negative": np.linspace(-1, 1, 200),
    "mostly negative": np.r_[np.linspace(0, 1, 20), np.linspace(-3, 0, 180)],
}


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_quadratics_of_every_spectrum_and_slope_are_exact_to_a_percent_and_say_so(spectrum, slope):
    curvature = SPECTRA[spectrum] / 2
    tilt = slope * np.random.default_rng(0).standard_normal(200) / math.sqrt(200)
    for seed in range(3):
        found = sharpness(quadratic(curvature.tolist(), tilt.tolist()), rho=1.0, seed=seed)
        assert found.converged
        offset = largest_in_ball(tilt, 2 * curvature, 1.0)
        truth = tilt @ offset + offset @ (curvature * offset)
        assert 0.99 * truth <= found.value <= truth * (1 + 1e-12)


def test_where_every_direction_leads_down_the_sharpness_is_zero():
    found = sharpness(quadratic([-1.0, -2.0, -0.5], [0.0, 0.0, 0.0]), rho=0.5)
    assert found.value == 0
    assert found.converged
    assert found.offset.norm() == 0


def test_a_maximum_inside_the_ball_is_found():
    # b . e - e . e has its maximum b . b / 4 at b / 2
    found = sharpness(quadratic([-1.0, -1.0], [0.4, 0.2]), rho=5.0)
    assert found.value == pytest.approx(0.05, rel=1e-4)
    assert found.converged


def test_what_had_no_time_to_converge_says_so():
    curvature = SPECTRA["flat"].tolist()
    short = sharpness(quadratic(curvature, [0.0] * 200), rho=1.0, steps=2, restarts=1)
    assert not short.converged
    assert np.nanmax(short.gaps) > 1e-4


def test_a_higher_maximum_on_the_side_that_the_gradient_points_away_from_is_found():
    # along the top eigenvector the loss is 4 e^2 - 0.4 e + 6 e^4 for negative e, of which random starts know little
    objective = quadratic([4.0] + [0.1] * 60, [0.4] + [0.0] * 60)
    steep = objective.loss_fn

    def lopsided(outputs, targets):
        return steep(outputs, targets) + 6 * outputs[..., 0].clamp(max=0).pow(4).mean()

    model, data = objective.independent_model(), (objective.inputs, objective.targets)
    found = sharpness(Objective(model, lopsided, data), rho=1.0)
    assert found.value == pytest.approx(4 - 0.4 + 6, rel=1e-2)
    assert found.one_step < 0.5 * found.value


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("adaptive", ["none", "elementwise", "filter"])
@pytest.mark.parametrize("name", ["relu-mlp", "cnn-batchnorm-dropout"])
def test_networks_reach_what_ten_long_ascents_of_short_steps_reach(name, adaptive, norm):
    model, inputs, targets = build(name)
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    rho = {"l2": 0.5, "linf": 0.05}[norm]
    found = sharpness(objective, rho=rho, norm=norm, adaptive=adaptive)
    # on a box, and for so few units, ridges of ReLU remain on which the gradient promises more than there is
    assert found.converged or (name == "relu-mlp" and adaptive != "elementwise")
    assert found.value >= 0.97 * exhaustive(objective, Neighborhood(rho, norm, scale_of(objective, adaptive)))


def test_the_offset_leads_to_the_rise():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    found = sharpness(objective, rho=0.3, adaptive="filter")
    rise = objective.value(objective.theta + found.offset) - found.center_loss
    assert rise == pytest.approx(found.value, rel=1e-9)


def test_eigenvectors_are_starts():
    objective = quadratic([4.0, 1.0, 0.5], [0.0, 0.0, 0.0])
    found = sharpness(objective, rho=0.5, restarts=0, start=top_eigenvalues(objective, 3))
    # the gradient's start, which is the center, and three eigenvectors in both directions
    np.testing.assert_allclose(found.starts, [0, 1, 1, 0.25, 0.25, 0.125, 0.125], atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_eigenvectors_than_five_are_the_start_of_a_search_for_five(count):
    objective = quadratic([4.0, 1.0, 0.5, 0.4, 0.3, 0.2], [0.0] * 6)
    found = sharpness(objective, rho=0.5, restarts=0, start=top_eigenvalues(objective, count))
    assert found.directions == 5
    np.testing.assert_allclose(found.starts[1:3], [1, 1], atol=1e-6)


def square(outputs, _):
    return outputs.square().mean()


STARTS = {
    # the model's output, the loss, copies of the weights that the memory budget holds -> eigenvectors and outputs
    "classes": (nn.Identity(), nn.CrossEntropyLoss(), 1000, 1, 3),
    "classes, small budget": (nn.Identity(), nn.CrossEntropyLoss(), 12, 0, 3),
    "columns": (nn.Identity(), square, 1000, 5, 6),
    "columns, small budget": (nn.Identity(), square, 12, 0, 6),
    "no columns": (nn.Unflatten(1, (1, -1)), square, 1000, 5, 0),
    "no columns, small budget": (nn.Unflatten(1, (1, -1)), square, 12, 1, 0),
}


@pytest.mark.parametrize(("last", "loss", "copies", "directions", "outputs"), STARTS.values(), ids=STARTS)
def test_the_result_says_from_what_the_search_started(last, loss, copies, directions, outputs):
    model, inputs, targets = build("relu-mlp")
    targets = inputs if loss is square else targets
    budget = 8 * copies * sum(weight.numel() for weight in model.parameters())
    objective = Objective(nn.Sequential(model, last), loss, (inputs, targets), memory_budget=budget)
    found = sharpness(objective, rho=0.3)
    assert (found.directions, found.outputs) == (directions, outputs)
    assert len(found.starts) >= 1 + 2 * directions + outputs
    assert found.converged


def test_of_many_classes_twenty_are_starts_and_further_starts_must_lead_no_higher():
    model = nn.Linear(3, 30)
    data = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 30
    found = sharpness(Objective(model, nn.CrossEntropyLoss(), data), rho=0.1)
    assert found.outputs == 20
    assert found.converged
    assert found.idle >= IN_A_ROW


def test_the_classes_of_pixels_are_starts():
    data = (
        torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0)),
        torch.arange(100).view(4, 5, 5) % 3,
    )
    found = sharpness(Objective(nn.Conv2d(2, 3, 1), nn.CrossEntropyLoss(), data), rho=0.3)
    assert (found.directions, found.outputs) == (1, 3)


def hinge(outputs, targets):
    return torch.relu(1 - outputs * targets).mean()


def test_a_rise_behind_a_flat_loss_is_found_along_an_output():
    """At the weights the hinge loss, its gradient and its Hessian are 0; along the output it rises to 0.1."""
    model = nn.Linear(50, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.2] + [0.0] * 49]))
    inputs = torch.zeros(10, 50)
    inputs[:, 0] = 1
    found = sharpness(Objective(model, hinge, (inputs, torch.ones(10, 1))), rho=0.3)
    assert found.value == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("weight", "rho"), [pytest.param(2.0, 0.3, id="flat"), pytest.param(0.0, 1e-8, id="below rounding")]
)
def test_no_rise_beyond_rounding_is_not_called_converged(weight, rho):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    found = sharpness(Objective(model, hinge, (torch.ones(10, 1), torch.ones(10, 1))), rho=rho)
    assert found.value < 1e-6
    assert not found.converged


def test_the_highest_maximum_may_be_where_one_class_is_given_to_all_samples():
    """The slope leads to class 1, the curvature to class 0. Between the center and class 3, the loss is flat."""
    model = nn.Linear(1, 12, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)

    def loss(outputs, _):
        return (
            3 * outputs[:, 0] ** 2 + outputs[:, 1] / 2 + 8 * torch.sigmoid(100 * (outputs[:, 3] - 0.5))
        ).mean()

    inputs, labels = torch.ones(24, 1, dtype=torch.float64), torch.arange(24) % 12
    found = sharpness(Objective(model, loss, (inputs, labels)), rho=0.6)
    first, third = np.meshgrid(np.linspace(0, 0.6, 601), np.linspace(0, 0.6, 601))
    second = np.sqrt(np.clip(0.36 - first**2 - third**2, 0, None))
    rises = 3 * first**2 + second / 2 + 8 / (1 + np.exp(-100 * (third - 0.5)))
    assert found.value == pytest.approx(rises[first**2 + third**2 <= 0.36].max(), rel=1e-2)
    assert found.converged


def test_the_highest_maximum_may_be_that_of_a_lower_eigenvector():
    """Along the second eigenvector, the loss grows with the fourth power. The ascent from there must not be missed."""
    objective = quadratic([4.0, 3.5] + [0.1] * 60, [0.4, 0.0] + [0.0] * 60)
    smooth = objective.loss_fn

    def steeper(outputs, targets):
        return smooth(outputs, targets) + 6 * outputs[..., 1].pow(4).mean()

    model, data = objective.independent_model(), (objective.inputs, objective.targets)
    found = sharpness(Objective(model, steeper, data), rho=1.0)
    assert found.value == pytest.approx(3.5 + 6, rel=1e-2)
    assert found.converged


@pytest.mark.parametrize(
    ("restarts", "converged"),
    [pytest.param(0, False, id="only the two signs"), pytest.param(4, True, id="random starts too")],
)
def test_at_a_minimum_the_two_signs_of_a_direction_do_not_confirm_each_other(restarts, converged):
    objective = quadratic([4.0, 1.0, 0.5], [0.0, 0.0, 0.0])
    found = sharpness(objective, rho=0.5, restarts=restarts, start=top_eigenvalues(objective, 1))
    assert found.value == pytest.approx(1.0)
    assert found.converged == converged


@pytest.mark.parametrize("dimensions", [1, 2, 5])
@pytest.mark.parametrize("seed", range(20))
def test_the_largest_value_of_a_quadratic_in_a_ball_is_scipys(dimensions, seed):
    generator = np.random.default_rng(seed)
    slope, curvatures = generator.standard_normal((2, dimensions))
    slope *= generator.choice([0.0, 1e-8, 1.0], dimensions)
    found = largest_in_ball(slope, curvatures, 0.7)
    assert np.linalg.norm(found) <= 0.7 * (1 + 1e-9)

    def negative(z):
        inside = z * min(1, 0.7 / max(np.linalg.norm(z), 1e-12))
        return -(slope @ inside + inside @ (curvatures * inside) / 2)

    starts = generator.standard_normal((20, dimensions))
    truth = min(scipy.optimize.minimize(negative, z, method="Nelder-Mead", tol=1e-10).fun for z in starts)
    assert negative(found) <= truth + 1e-7


@pytest.mark.parametrize(
    ("options", "field"),
    [({"rho": 0}, "rho"), ({"norm": "l1"}, "norm"), ({"steps": -1}, "steps"), ({"tol": 0.0}, "tol")],
)
def test_bad_arguments_are_named(options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        sharpness(quadratic([1.0], [1.0]), **options)


@pytest.mark.parametrize(
    ("measure", "field"),
    [
        (lambda o: sharpness(o, rho=1e20), "rho"),
        (lambda o: sharpness(o, rho=1e39, norm="linf"), "rho"),
        (lambda o: average_sharpness(o, sigma=1e39), "sigma"),
        (lambda o: sharpness_profile(o, sizes={"worst, ball": 1e20}), "sizes"),
    ],
)
def test_sizes_beyond_the_dtype_of_the_weights_are_refused(measure, field):
    objective = Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), (torch.eye(2), torch.arange(2)))
    with pytest.raises(ValueError, match=f"^{field}.*torch.float32.*smaller"):
        measure(objective)


def test_eigenvectors_of_another_size_are_refused():
    eigen = top_eigenvalues(quadratic([1.0, 2.0], [0.0, 0.0]))
    with pytest.raises(ValueError, match="^start"):
        sharpness(quadratic([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]), start=eigen)
