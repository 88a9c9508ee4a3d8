import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, filter_normalized_directions, line, surface
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()


def quadratic():
    """L(w) = mean over samples of (w . x)^2, a quadratic whose value is known at every point."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 4, dtype=torch.float64, generator=generator)
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, 4, dtype=torch.float64, generator=generator))
    objective = Objective(model, nn.MSELoss(), (inputs, torch.zeros(20, 1, dtype=torch.float64)))
    directions = torch.randn(2, 4, dtype=torch.float64, generator=generator)

    def truth(weights):
        return (inputs @ weights).square().mean().item()

    return objective, directions, truth


@pytest.mark.parametrize("steps", [4, 5])
def test_every_point_of_a_surface_has_the_loss_at_its_coordinates(steps):
    objective, (first, second), truth = quadratic()
    result = surface(objective, (first, second), extent=0.7, steps=steps)
    for i, alpha in enumerate(result.alpha):
        for j, beta in enumerate(result.beta):
            expected = truth(objective.theta + alpha * first + beta * second)
            assert result.loss[i, j] == pytest.approx(expected, rel=1e-12)
    assert result.alpha[0] == -0.7
    assert result.alpha[-1] == 0.7
    assert result.center_loss == pytest.approx(truth(objective.theta), rel=1e-12)


@pytest.mark.parametrize("steps", [4, 5])
def test_every_point_of_a_line_has_the_loss_at_its_coordinate(steps):
    objective, (first, _), truth = quadratic()
    result = line(objective, first, extent=2, steps=steps)
    expected = [truth(objective.theta + alpha * first) for alpha in result.alpha]
    np.testing.assert_allclose(result.loss, expected, rtol=1e-12)


def test_an_odd_grid_has_the_model_itself_at_its_center_bit_by_bit():
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    result = surface(objective, filter_normalized_directions(objective, 2), steps=5)
    assert result.alpha[2] == result.beta[2] == 0
    assert result.loss[2, 2] == result.center_loss == objective.value()
    assert result.accuracy[2, 2] == result.center_accuracy


def test_a_loss_that_is_not_finite_stays_so():
    objective, (first, second), _ = quadratic()
    result = surface(objective, (first * 1e200, second), steps=3)
    assert np.isinf(result.loss[0]).all()
    assert np.isfinite(result.loss[1]).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"extent": 0}, "extent"),
        ({"extent": float("nan")}, "extent"),
        ({"extent": [1.0, 2.0, 3.0]}, "extent"),
        ({"extent": "wide"}, "extent"),
        ({"steps": 1}, "steps"),
        ({"steps": 2.5}, "steps"),
    ],
)
def test_bad_arguments_are_named(options, field):
    objective, (first, second), _ = quadratic()
    with pytest.raises(ValueError, match=f"^{field}"):
        surface(objective, (first, second), **options)
    with pytest.raises(
        ValueError, match="^direction: must be .*; a direction belongs to the weights of one model"
    ):
        line(objective, torch.ones(3))
    with pytest.raises(TypeError, match="^extent: must be a number"):
        line(objective, first, extent=[1.0, 2.0])


def test_an_extent_beyond_the_numbers_of_the_weights_dtype_is_named():
    objective = Objective(nn.Linear(5, 3), nn.CrossEntropyLoss(), (torch.ones(2, 5), torch.tensor([0, 1])))
    with pytest.raises(ValueError, match=r"^extent: .* torch.float32 ends at"):
        line(objective, torch.ones(18), extent=1e39, steps=3)


def test_a_pair_of_extents_may_be_a_list():
    objective, plane, _ = quadratic()
    found = surface(objective, plane, extent=[1.0, 2.0], steps=[3, 5])
    assert found.alpha.tolist() == [-1, 0, 1]
    assert found.beta.tolist() == [-2, -1, 0, 1, 2]
