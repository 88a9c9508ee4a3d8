import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

import landscape
from landscape import Objective
from landscape.perturbations.relative_scale import scale_of
from landscape.slices import trajectory
from tests.conftest import build, dense_hessian

cross_entropy = nn.CrossEntropyLoss()


def objective_of(name, **options):
    model, inputs, targets = build(name)
    return Objective(model, cross_entropy, (inputs, targets), **options)


def norms_of(objective, vector):
    return {name: part.norm().item() for name, part in objective.unflatten(vector).items()}


@pytest.mark.parametrize("groups", [1, 2])
def test_the_filters_of_a_transposed_convolution_are_those_of_its_outputs(groups):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.ConvTranspose2d(4, 6, 3, groups=groups).double()
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(54, 2).double())
        with torch.no_grad():
            layer.weight.mul_(torch.rand(4, 6 // groups, 1, 1) * 10)
        data = (torch.randn(5, 4, 1, 1).double(), torch.tensor([0, 1, 0, 1, 0]))
    objective = Objective(model, cross_entropy, data)
    directions = landscape.filter_normalized_directions(objective, 1)
    parts = objective.unflatten(directions.vectors[:, 0].contiguous())
    scales = objective.unflatten(scale_of(objective, "filter"))
    for output in range(6):
        # the inputs of its group, and its place in it
        inputs = range(4 // groups * (output // (6 // groups)), 4 // groups * (output // (6 // groups) + 1))
        one = output % (6 // groups)
        norms = [
            math.sqrt(sum(of["0.weight"][i, one].square().sum().item() for i in inputs))
            for of in (parts, objective.unflatten(objective.theta))
        ]
        assert norms[0] == pytest.approx(norms[1], rel=1e-12)
        for i in inputs:
            assert scales["0.weight"][i, one].numpy() == pytest.approx(np.full((3, 3), norms[1]))


def test_each_filter_of_a_direction_has_the_norm_of_the_models_filter():
    objective = objective_of("cnn-batchnorm-dropout")
    directions = landscape.filter_normalized_directions(objective, 2, seed=1)
    for column in range(2):
        parts = objective.unflatten(directions.vectors[:, column])
        for name, weight in objective.unflatten(objective.theta).items():
            if weight.ndim == 1:
                assert torch.equal(parts[name], torch.zeros_like(weight))
            else:
                norms = [torch.linalg.vector_norm(t.flatten(1), dim=1) for t in (parts[name], weight)]
                torch.testing.assert_close(norms[0], norms[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("per", ["filter", "layer"])
def test_one_dimensional_parameters_can_be_normalized_as_a_whole(per):
    objective = objective_of("cnn-batchnorm-dropout")
    directions = landscape.random_directions(objective, 1, normalize=per, one_dimensional="normalize")
    found, truth = norms_of(objective, directions.vectors[:, 0]), norms_of(objective, objective.theta)
    assert found == pytest.approx(truth)
    assert directions.one_dimensional == "normalize"


def test_each_tensor_of_a_layer_normalized_direction_has_the_norm_of_the_models():
    objective = objective_of("mlp")
    directions = landscape.random_directions(objective, 1, normalize="layer")
    found, truth = norms_of(objective, directions.vectors[:, 0]), norms_of(objective, objective.theta)
    assert found == pytest.approx({n: 0.0 if n.endswith("bias") else v for n, v in truth.items()})


@pytest.mark.parametrize("one_dimensional", ["zero", "normalize"])
def test_a_model_normalized_direction_has_the_norm_of_the_model(one_dimensional):
    objective = objective_of("mlp")
    (vector,) = landscape.random_directions(
        objective, 1, normalize="model", one_dimensional=one_dimensional
    ).vectors.T
    assert vector.norm().item() == pytest.approx(objective.theta.norm().item())
    assert (norms_of(objective, vector)["1.bias"] == 0) == (one_dimensional == "zero")


def test_a_filter_of_zeros_gives_zeros():
    model, inputs, targets = build("mlp")
    with torch.no_grad():
        model[1].weight[2] = 0
    objective = Objective(model, cross_entropy, (inputs, targets))
    vector = landscape.filter_normalized_directions(objective, 1).vectors[:, 0]
    assert (objective.unflatten(vector)["1.weight"][2] == 0).all()
    eigenvector = landscape.given_direction(objective, torch.zeros_like(objective.theta))
    assert (landscape.normalized(eigenvector, objective).vectors == 0).all()


def test_directions_are_gaussian_before_normalization_and_differ():
    model = nn.Linear(4000, 1, bias=False)
    objective = Objective(model, nn.MSELoss(), (torch.zeros(2, 4000), torch.zeros(2, 1)))
    directions = landscape.filter_normalized_directions(objective, 2, seed=0)
    entries = directions.vectors[:, 0].numpy()
    # fourth moment of a Gaussian over its squared second: 3, with standard error sqrt(24 / n)
    kurtosis = np.mean(entries**4) / np.mean(entries**2) ** 2
    assert abs(kurtosis - 3) < 4 * np.sqrt(24 / 4000)
    assert abs(directions.cosines[0, 1]) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("factor", [0.1, 7.0])
@pytest.mark.parametrize("per", ["filter", "layer"])
def test_rescaling_a_relu_network_leaves_its_surface_as_it_was(factor, per):
    model, inputs, targets = build("relu-mlp")
    surfaces = []
    for scale in (1.0, factor):
        with torch.no_grad():
            for parameter in model[1].parameters():
                parameter.mul_(scale)
            model[3].weight.div_(scale)
        objective = Objective(model, cross_entropy, (inputs, targets))
        directions = landscape.random_directions(objective, 2, normalize=per, seed=3)
        surfaces.append(landscape.surface(objective, directions, steps=5).loss)
    np.testing.assert_allclose(surfaces[0], surfaces[1], rtol=1e-9)


@pytest.mark.parametrize("batch_norm", ["eval", "recalibrate"])
def test_rescaling_filters_before_batch_norm_leaves_the_surface_as_it_was(batch_norm):
    model, inputs, targets = build("cnn-batchnorm-dropout")
    factors = torch.tensor([0.2, 1.0, 3.0, 10.0], dtype=torch.float64)
    model[1].eps = 1e-14
    surfaces = []
    for scale in (torch.ones_like(factors), factors):
        with torch.no_grad():
            model[0].weight.mul_(scale.view(-1, 1, 1, 1))
            model[0].bias.mul_(scale)
            model[1].running_mean.mul_(scale)
            model[1].running_var.mul_(scale**2)
        objective = Objective(model, cross_entropy, (inputs, targets))
        directions = landscape.filter_normalized_directions(objective, 2, seed=3)
        surfaces.append(landscape.surface(objective, directions, steps=5, batch_norm=batch_norm).loss)
    # up to the layer's epsilon
    np.testing.assert_allclose(surfaces[0], surfaces[1], rtol=1e-8)


def test_eigenvectors_are_those_of_the_dense_hessian():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = landscape.eigenvector_directions(landscape.top_eigenvalues(objective, 2, tol=1e-9))
    _, vectors = torch.linalg.eigh(dense_hessian(model, inputs, targets))
    overlap = (directions.vectors.T.double() @ vectors[:, [-1, -2]]).abs()
    torch.testing.assert_close(overlap, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-6)
    assert "hessian" in directions.kind


def test_the_gradient_and_a_given_perturbation_are_taken_as_they_are():
    objective = objective_of("mlp")
    gradient = objective.gradient()
    assert torch.equal(landscape.gradient_direction(objective).vectors[:, 0], gradient)
    tensors = list(objective.unflatten(gradient).values())
    for given in (gradient, tensors, objective.unflatten(gradient)):
        made = landscape.given_direction(objective, given, kind="SAM's perturbation")
        assert torch.equal(made.vectors[:, 0], gradient)
        assert made.kind == "SAM's perturbation"


def test_another_checkpoint_lies_at_the_multiple_one():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3).add_(0.1)
    other = Objective(model, cross_entropy, (inputs, targets))
    for weights in (model, model.state_dict(), other.theta):
        toward = landscape.direction_to(objective, weights)
        torch.testing.assert_close(objective.theta + toward.vectors[:, 0], other.theta)
    plane = landscape.surface(
        objective,
        landscape.combined(toward, landscape.gradient_direction(objective)),
        alpha=[0.0, 0.5, 1.0],
        beta=[0.0, 1.0],
    )
    assert plane.loss[0, 0] == objective.value()
    assert plane.loss[2, 0] == pytest.approx(other.value(), rel=1e-12)


def test_angles_are_stored_and_orthogonalized_directions_keep_length_and_plane():
    objective = objective_of("mlp")
    pair = landscape.combined(
        landscape.gradient_direction(objective), landscape.random_directions(objective, 1, normalize="model")
    )
    first, second = pair.vectors.T
    cosine = (first @ second / first.norm() / second.norm()).item()
    assert pair.angles[0, 1] == pytest.approx(math.degrees(math.acos(cosine)))
    made = landscape.orthogonalized(pair)
    assert made.orthogonalized
    assert made.angles[0, 1] == pytest.approx(90)
    torch.testing.assert_close(made.vectors.norm(dim=0), pair.vectors.norm(dim=0))
    torch.testing.assert_close(made.vectors[:, 0], first)
    angles = scipy.linalg.subspace_angles(made.vectors.numpy(), pair.vectors.numpy())
    assert np.abs(angles).max() < 1e-7


def test_parallel_directions_are_no_plane():
    objective = objective_of("mlp")
    once = landscape.gradient_direction(objective)
    with pytest.raises(ValueError, match="^directions"):
        landscape.orthogonalized(landscape.combined(once, once))


def walk(objective, steps, drift=1.0):
    generator = torch.Generator().manual_seed(2)
    draws = torch.randn(steps, objective.n_parameters, dtype=torch.float64, generator=generator)
    scales = torch.linspace(1, 0, steps, dtype=torch.float64).unsqueeze(1)
    return list(objective.theta + drift * scales * draws[0] + 0.3 * draws * scales)


def test_principal_directions_are_those_of_numpys_covariance():
    objective = objective_of("mlp")
    checkpoints = walk(objective, 7)
    directions, path = landscape.trajectory_directions(objective, checkpoints)
    covariance = np.cov(torch.stack(checkpoints).T.numpy())
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(path.explained, values[::-1][:2] / values.sum(), rtol=1e-9)
    overlap = np.abs(directions.vectors.T.numpy() @ vectors[:, [-1, -2]])
    np.testing.assert_allclose(overlap, np.eye(2), atol=1e-6)


def test_the_projected_path_ends_at_the_model_and_says_how_far_off_the_plane_it_was():
    objective = objective_of("mlp")
    checkpoints = walk(objective, 7)
    directions, path = landscape.trajectory_directions(objective, checkpoints)
    np.testing.assert_allclose(path.coordinates[-1], 0, atol=1e-12)
    for weights, at, distance in zip(checkpoints, path.coordinates, path.distances, strict=True):
        offset = (weights - objective.theta).numpy()
        solution, rest, *_ = np.linalg.lstsq(directions.vectors.numpy(), offset, rcond=None)
        np.testing.assert_allclose(at, solution, atol=1e-9)
        assert distance == pytest.approx(math.sqrt(rest.sum()), abs=1e-9)


def test_a_path_is_projected_on_directions_that_are_not_orthogonal_by_least_squares():
    objective = objective_of("mlp")
    skew = landscape.random_directions(objective, 2, normalize="model", one_dimensional="normalize")
    skew = landscape.combined(skew, landscape.gradient_direction(objective))
    wanted = np.array([[0.5, -1.0, 2.0], [0.1, 0.2, 0.3]])
    checkpoints = [objective.theta + skew.vectors @ torch.from_numpy(row) for row in wanted]
    path = landscape.projected_trajectory(objective, skew, checkpoints)
    np.testing.assert_allclose(path.coordinates, wanted, rtol=1e-9)
    np.testing.assert_allclose(path.distances, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"count": 0}, "count"),
        ({"one_dimensional": "skip"}, "one_dimensional"),
        ({"normalize": "row"}, "normalize"),
    ],
)
def test_bad_directions_are_named(options, field):
    objective = objective_of("mlp")
    with pytest.raises(ValueError, match=f"^{field}:"):
        landscape.random_directions(objective, **options)


@pytest.mark.parametrize("make", [landscape.filter_normalized_directions, "normalized"])
def test_directions_that_would_all_be_zero_are_refused_with_the_remedy(make):
    def directions(objective, **options):
        if make == "normalized":
            return landscape.normalized(landscape.gradient_direction(objective), objective, **options)
        return make(objective, 1, **options)

    biases = objective_of("mlp").subset(parameters=lambda name: name.endswith("bias"))
    with pytest.raises(ValueError, match=r"^one_dimensional: .*give one_dimensional='normalize'"):
        directions(biases)
    assert directions(biases, one_dimensional="normalize").vectors.any()
    model, inputs, targets = build("mlp")
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.zeros_(weight)
    with pytest.raises(ValueError, match=r"^objective: all its weights are 0"):
        directions(Objective(model, cross_entropy, (inputs, targets)))


class WithoutEntries(nn.Module):
    """As a layer with no outputs, which a search over widths makes."""

    def __init__(self):
        super().__init__()
        self.empty = nn.Parameter(torch.zeros(0, 5))
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) + self.empty.sum()


def test_a_parameter_without_entries_is_no_hindrance():
    data = torch.randn(6, 5), torch.arange(6) % 3
    objective = Objective(WithoutEntries(), cross_entropy, data)
    directions = landscape.filter_normalized_directions(objective, 1)
    assert directions.vectors.any()
    assert landscape.relative_flatness(objective).layer == "layer.weight"
    with pytest.raises(ValueError, match=r"^parameters: 'empty' hold no number"):
        objective.subset(parameters=lambda name: name == "empty")


@pytest.mark.parametrize("options", [{"per": "row"}, {"one_dimensional": "skip"}])
def test_bad_normalizations_are_named_as_the_function_names_them(options):
    objective = objective_of("mlp")
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: must be one of"):
        landscape.normalized(landscape.gradient_direction(objective), objective, **options)


def test_bad_weights_and_checkpoints_are_named():
    objective = objective_of("mlp")
    with pytest.raises(ValueError, match="^directions"):
        landscape.surface(objective, landscape.filter_normalized_directions(objective, 1))
    with pytest.raises(ValueError, match="^weights: no '1.weight'"):
        landscape.direction_to(objective, {"2.weight": torch.ones(2)})
    with pytest.raises(ValueError, match="^weights"):
        landscape.direction_to(objective, [torch.ones(3)])
    with pytest.raises(ValueError, match="^checkpoints"):
        landscape.trajectory_directions(objective, [objective.theta])
    with pytest.raises(ValueError, match="^count"):
        landscape.trajectory_directions(objective, [objective.theta, objective.theta + 1], 2)
    broken = torch.full_like(objective.theta, torch.nan)
    with pytest.raises(
        ValueError, match="^checkpoints: the one at position 1 holds weights that are not finite"
    ):
        landscape.trajectory_directions(objective, [objective.theta, broken, objective.theta + 1], 2)
    few = objective_of("mlp", parameters=lambda name: name.endswith("3.bias"))
    assert few.n_parameters < 5
    with pytest.raises(ValueError, match="^count: . weights have no more directions, got 5"):
        landscape.trajectory_directions(few, list(torch.randn(8, few.n_parameters)), 5)
    with pytest.raises(ValueError, match="^count"):
        landscape.eigenvector_directions(landscape.top_eigenvalues(objective), 2)


@pytest.mark.parametrize("ratio", [1.0, 1e-3, 1e-6])
def test_principal_directions_in_blocks_are_those_of_a_singular_value_decomposition(ratio, monkeypatch):
    """Also where the second direction is far shorter than the first."""
    monkeypatch.setattr(trajectory, "BLOCK", 7)
    objective = objective_of("mlp")
    generator = torch.Generator().manual_seed(0)
    n = objective.n_parameters
    plane = torch.linalg.qr(torch.randn(n, 2, dtype=torch.float64, generator=generator)).Q
    along = torch.randn(9, 2, dtype=torch.float64, generator=generator) * torch.tensor([1.0, ratio])
    points = objective.theta + along @ plane.T
    directions, path = landscape.trajectory_directions(objective, list(points))
    _, sizes, rows = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    shares = (sizes.square() / sizes.square().sum())[:2]
    # sizes are rounded at 1e-8 of the first one
    np.testing.assert_allclose(np.sqrt(path.explained), shares.sqrt(), atol=1e-7)
    cosines = (directions.vectors.T @ rows[:2].T).abs().diagonal()
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-4)
    np.testing.assert_allclose(path.distances, 0, atol=1e-7)
    at = directions.vectors @ torch.from_numpy(path.coordinates).T
    torch.testing.assert_close(objective.theta + at.T, points, rtol=0, atol=1e-7)
