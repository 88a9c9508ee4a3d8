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


def test_an_odd_grid_has_the_model_itself_at_its_centre_bit_by_bit():
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
    [({"extent": 0}, "extent"), ({"extent": float("nan")}, "extent"), ({"steps": 1}, "steps")],
)
def test_bad_arguments_are_named(options, field):
    objective, (first, second), _ = quadratic()
    with pytest.raises(ValueError, match=f"^{field}"):
        surface(objective, (first, second), **options)
    with pytest.raises(ValueError, match="^direction"):
        line(objective, torch.ones(3))


def test_each_filter_of_a_direction_has_the_norm_of_the_models_filter():
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = filter_normalized_directions(objective, 2, seed=1)
    for column in range(2):
        parts = objective.unflatten(directions.vectors[:, column])
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                assert torch.equal(parts[name], torch.zeros_like(weight))
            else:
                norms = [torch.linalg.vector_norm(t.flatten(1), dim=1) for t in (parts[name], weight)]
                torch.testing.assert_close(norms[0], norms[1].detach(), rtol=1e-12, atol=0)


def test_one_dimensional_parameters_can_be_normalised_as_a_whole():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = filter_normalized_directions(objective, 1, one_dimensional="normalize")
    parts = objective.unflatten(directions.vectors[:, 0])
    for name, weight in model.named_parameters():
        assert torch.linalg.vector_norm(parts[name]).item() == pytest.approx(weight.norm().item())


def test_directions_are_gaussian_before_normalisation_and_differ():
    model = nn.Linear(4000, 1, bias=False)
    objective = Objective(model, nn.MSELoss(), (torch.zeros(2, 4000), torch.zeros(2, 1)))
    directions = filter_normalized_directions(objective, 2, seed=0)
    entries = directions.vectors[:, 0].numpy()
    # fourth moment of a Gaussian over its squared second: 3, with standard error sqrt(24 / n)
    kurtosis = np.mean(entries**4) / np.mean(entries**2) ** 2
    assert abs(kurtosis - 3) < 4 * np.sqrt(24 / 4000)
    assert abs(directions.cosines[0, 1]) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_rescaling_a_relu_network_leaves_its_surface_as_it_was(factor):
    model, inputs, targets = build("relu-mlp")
    with torch.no_grad():
        model[1].bias.zero_()
        model[3].bias.zero_()
    surfaces = []
    for scale in (1.0, factor):
        with torch.no_grad():
            model[1].weight.mul_(scale)
            model[3].weight.div_(scale)
        objective = Objective(model, cross_entropy, (inputs, targets))
        surfaces.append(surface(objective, filter_normalized_directions(objective, 2, seed=3), steps=5).loss)
        with torch.no_grad():
            model[1].weight.div_(scale)
            model[3].weight.mul_(scale)
    np.testing.assert_allclose(surfaces[0], surfaces[1], rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "field"), [({"count": 0}, "count"), ({"one_dimensional": "skip"}, "one_dimensional")]
)
def test_bad_directions_are_named(options, field):
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match=f"^{field}"):
        filter_normalized_directions(objective, **options)
    with pytest.raises(ValueError, match="^directions"):
        surface(objective, filter_normalized_directions(objective, 1))
