"""A loss times a constant, in float32, where squares of its gradients are 0 or infinite: measures scale with it."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape import Objective
from landscape.krylov import SymmetricOperator, top_eigenpairs
from landscape.model.long_vectors import length, lengths, norm, of_length, power_of_two
from landscape.perturbations.ascent import Neighborhood

FACTORS = [1e-30, 1e-26, 1e-22, 5e-22, 1e-21, 1e20, 1e30]


def scaled(outputs, targets, factor):
    return nn.functional.cross_entropy(outputs, targets) * factor


def objective_of(factor, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 4, generator=generator).to(dtype)
    targets = torch.randint(0, 3, (40,), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    return Objective(model, partial(scaled, factor=factor), (inputs, targets))


@pytest.fixture(name="truth", scope="module")
def _truth():
    return objective_of(1.0, torch.float64)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("norm_of_ball", ["l2", "linf"])
def test_sharpness_scales_and_stays_in_its_ball(factor, norm_of_ball, truth):
    options = {"rho": 0.5 if norm_of_ball == "l2" else 0.1, "norm": norm_of_ball}
    expected = landscape.sharpness(truth, **options)
    found = landscape.sharpness(objective_of(factor), **options)
    # the box has maxima of nearly equal height, which float32 and float64 may tell apart by the tolerance
    close = 2e-3 if norm_of_ball == "l2" else 0.01
    assert found.value / factor == pytest.approx(expected.value, rel=close)
    assert found.one_step / factor == pytest.approx(expected.one_step, rel=1e-4)
    order = 2 if norm_of_ball == "l2" else math.inf
    assert torch.linalg.vector_norm(found.offset.double(), order).item() <= 1.00001 * options["rho"]
    assert found.converged


@pytest.mark.parametrize("factor", FACTORS)
def test_gradients_of_samples_scale(factor, truth):
    measures = ["gradient_norm", "gradient_cosine"]
    expected = landscape.sample_curvature(truth, measures=measures)
    found = landscape.sample_curvature(objective_of(factor), measures=measures)
    np.testing.assert_allclose(found.gradient_norm / factor, expected.gradient_norm, rtol=1e-4)
    np.testing.assert_allclose(found.gradient_cosine, expected.gradient_cosine, atol=1e-4)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("per", ["filter", "layer", "model"])
def test_a_gradient_direction_is_normalized_and_has_its_angles(factor, per, truth):
    def directions(objective):
        gradient = landscape.gradient_direction(objective)
        made = landscape.normalized(gradient, objective, per, one_dimensional="normalize")
        other = landscape.given_direction(objective, torch.arange(len(objective.theta)).to(objective.theta))
        return made.vectors.double(), landscape.combined(gradient, other, made)

    (found, angles), (expected, true_angles) = directions(objective_of(factor)), directions(truth)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(angles.cosines, true_angles.cosines, atol=1e-5)


@pytest.mark.parametrize("size", [1e-13, 1e-40, 1e-200, 1e200])
def test_the_cosine_of_short_and_long_vectors(size, truth):
    one = torch.ones(len(truth.theta), dtype=torch.float64)
    other = torch.arange(len(one), dtype=torch.float64)
    made = landscape.combined(
        landscape.given_direction(truth, size * one), landscape.given_direction(truth, other)
    )
    expected = (one @ other / one.norm() / other.norm()).item()
    assert made.cosines[0, 1] == pytest.approx(expected, rel=1e-9)
    assert made.angles[0, 1] == pytest.approx(math.degrees(math.acos(expected)), rel=1e-9)


@pytest.mark.parametrize("factor", [1e-30, 1e-22, 1e20, 1e30])
def test_the_empirical_fisher_matrix_is_refused_where_float32_has_no_such_numbers(factor):
    with pytest.raises(ValueError, match="out of the range of float32"):
        landscape.trace(objective_of(factor), matrix="empirical-fisher", max_products=60)
    exact = landscape.trace(objective_of(factor, torch.float64), matrix="empirical-fisher", max_products=60)
    expected = landscape.trace(objective_of(1.0, torch.float64), matrix="empirical-fisher", max_products=60)
    assert exact.value / factor**2 == pytest.approx(expected.value, rel=1e-9)


@pytest.mark.parametrize("factor", [1e-17, 1e17])
def test_squares_that_float32_holds_are_right_though_products_on_the_way_are_not(factor):
    found = landscape.trace(objective_of(factor), matrix="empirical-fisher", max_products=60)
    expected = landscape.trace(objective_of(1.0, torch.float64), matrix="empirical-fisher", max_products=60)
    assert found.value / factor**2 == pytest.approx(expected.value, rel=1e-3)


@pytest.mark.parametrize("factor", [1e-30, 1e-22, 1e20])
def test_a_search_from_start_vectors_finds_what_they_miss(factor):
    """The start is an eigenvector of another eigenvalue, so that all hangs on the random vector beside it."""
    matrix = factor * torch.diag(torch.linspace(0.01, 3, 60, dtype=torch.float32))
    start = torch.eye(60)[:, :1]
    for block in (None, 1):
        found = top_eigenpairs(
            SymmetricOperator.of_matrix(matrix),
            1,
            start=start,
            block=block,
            generator=torch.Generator().manual_seed(0),
        )
        assert float(found.values[0]) / factor == pytest.approx(3, rel=1e-3)


SIZES = {torch.float32: [1e-36, 1e-25, 1.0, 1e25], torch.float64: [1e-300, 1e-170, 1.0, 1e170]}


@pytest.mark.parametrize(
    ("dtype", "size"), [(dtype, size) for dtype, sizes in SIZES.items() for size in sizes]
)
def test_lengths_do_not_underflow_or_overflow(dtype, size):
    plain = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tensor = (plain * size).to(dtype)
    flat = tensor.flatten()
    for found in (length(flat), norm(flat)):
        assert found / size == pytest.approx(plain.norm().item(), rel=1e-6)
    torch.testing.assert_close(
        lengths(tensor, 1)[:, 0].double() / size, torch.linalg.vector_norm(plain, dim=1), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        of_length(flat, 0.3).double(), 0.3 * plain.flatten() / plain.norm(), rtol=1e-5, atol=1e-9
    )
    inside = Neighborhood(0.4, "l2", 1.0).nearest(flat.clone())
    assert inside.double().norm().item() <= 0.400001
    assert torch.equal(inside, flat) == (plain.norm().item() * size <= 0.4)


def test_a_power_of_two_rounds_no_entry_and_zero_stays_zero():
    tensor = torch.randn(100, generator=torch.Generator().manual_seed(0))
    unit = power_of_two(tensor)
    assert torch.equal(tensor / unit * unit, tensor)
    assert math.log2(float(unit)).is_integer()
    assert torch.equal(of_length(torch.zeros(3), 2.0), torch.zeros(3))
    assert float(power_of_two(torch.tensor([math.inf, 1.0]))) == 1
