"""Models and losses that take derivatives by themselves: every measure agrees with dense derivatives in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from landscape import (
    Objective,
    average_sharpness,
    curvature_parts,
    diagonal,
    filter_normalized_directions,
    layer_traces,
    line,
    relative_flatness,
    sample_curvature,
    sharpness,
    sharpness_profile,
    spectral_density,
    surface,
    top_eigenvalues,
    trace,
)

D = torch.float64
DRAW = torch.Generator().manual_seed(0)
INPUTS = torch.randn(20, 4, generator=DRAW, dtype=D)
SLOPES = torch.randn(20, 4, generator=DRAW, dtype=D)
CLASSES = torch.arange(20) % 3
SHARES = torch.rand(20, 1, generator=DRAW, dtype=D)


class Hamiltonian(nn.Module):
    """Its outputs are the derivatives of an energy in its inputs."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, inputs):
        inputs = inputs.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(self.energy(inputs).sum(), inputs, create_graph=True)
        positions, momenta = slopes.chunk(2, 1)
        return torch.cat([momenta, -positions], 1)


class EnergyClassifier(Hamiltonian):
    """Its scores of three classes are derivatives in its inputs."""

    def forward(self, inputs):
        return super().forward(inputs)[:, :3]


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, outputs))


def eikonal(model, points):
    points = points.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
    return (slopes.square().sum(1) - 1).square().mean()


def critic(model, batch):
    real, fake, share = batch
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slopes,) = torch.autograd.grad(model(between).sum(), between, create_graph=True)
    return (model(fake) - model(real)).mean() + 10 * (slopes.square().sum(1) - 1).square().mean()


def invariance(scores, classes):
    """The penalty of invariant risk minimization, sample by sample."""
    with torch.enable_grad():
        return invariance_where_torch_records(scores, classes)


def invariance_where_torch_records(scores, classes):
    scale = torch.ones(len(scores), 1, dtype=scores.dtype, requires_grad=True)
    losses = cross_entropy(scores * scale, classes, reduction="none")
    (slopes,) = torch.autograd.grad(losses.sum(), scale, create_graph=True)
    return (losses + slopes.squeeze(1).square()).mean()


def slope_in_scores(scores, classes):
    losses = cross_entropy(scores, classes, reduction="none")
    (slopes,) = torch.autograd.grad(losses.sum(), scores, create_graph=True)
    return (losses + slopes.square().sum(1)).mean()


def after_inner_step(model, tasks):
    """MAML: the loss of queries after a step of gradient descent on the support, for each of the tasks."""
    losses = []
    for inputs, classes in zip(*tasks, strict=True):
        weights = dict(model.named_parameters())
        support = cross_entropy(functional_call(model, weights, (inputs[:2],)), classes[:2])
        slopes = torch.autograd.grad(support, list(weights.values()), create_graph=True)
        stepped = {
            name: weight - 0.5 * slope for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }
        losses.append(cross_entropy(functional_call(model, stepped, (inputs[2:],)), classes[2:]))
    return torch.stack(losses).mean()


TASKS = INPUTS.view(4, 5, 4), CLASSES.view(4, 5)
CASES = {
    "Hamiltonian network": (Hamiltonian, lambda model: nn.MSELoss()(model(INPUTS), SLOPES)),
    "eikonal": (lambda: network(4, 1), lambda model: eikonal(model, INPUTS)),
    "critic": (lambda: network(4, 1), lambda model: critic(model, (INPUTS, SLOPES, SHARES))),
    "invariance": (lambda: network(4, 3), lambda model: invariance(model(INPUTS), CLASSES)),
    "invariance where torch records": (
        lambda: network(4, 3),
        lambda model: invariance_where_torch_records(model(INPUTS), CLASSES),
    ),
    "slope in the scores": (lambda: network(4, 3), lambda model: slope_in_scores(model(INPUTS), CLASSES)),
    "MAML": (lambda: network(4, 3), lambda model: after_inner_step(model, TASKS)),
}


def objective_of(case, model, **options):
    supervised = {
        "Hamiltonian network": (nn.MSELoss(), SLOPES),
        "invariance": (invariance, CLASSES),
        "invariance where torch records": (invariance_where_torch_records, CLASSES),
        "slope in the scores": (slope_in_scores, CLASSES),
    }
    if case in supervised:
        loss_fn, targets = supervised[case]
        return Objective(model, loss_fn, (INPUTS, targets), **options)
    # a tensor by itself is one batch
    loss, data = {
        "eikonal": (eikonal, INPUTS),
        "critic": (critic, (INPUTS, SLOPES, SHARES)),
        "MAML": (after_inner_step, TASKS),
    }[case]
    return Objective.of_loss(loss, model, data, **options)


def prepared(case):
    torch.manual_seed(1)
    make, loss = CASES[case]
    model = make().double()
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]

    def at(theta):
        parts = theta.split([shape.numel() for shape in shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

        class At(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self):
                return loss(self.model)

        return functional_call(At(), {f"model.{name}": part for name, part in weights.items()}, ())

    theta = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return model, theta, at


def hessian_of(at, theta):
    variable = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(at(variable), variable, create_graph=True)
    rows = [torch.autograd.grad(each, variable, retain_graph=True)[0] for each in gradient]
    return gradient.detach(), torch.stack(rows)


@pytest.mark.filterwarnings("ignore:linearize. products are direct")
@pytest.mark.parametrize("linearize", ["measured", "counted", False])
@pytest.mark.parametrize("case", CASES)
def test_derivatives_and_losses_are_the_dense_ones(case, linearize):
    model, theta, at = prepared(case)
    gradient, hessian = hessian_of(at, theta)
    objective = objective_of(case, model, linearize=linearize)
    assert objective.value() == pytest.approx(at(theta.requires_grad_()).item())
    torch.testing.assert_close(objective.gradient(), gradient)
    torch.testing.assert_close(objective.hvp(torch.eye(len(theta), dtype=D)), hessian)
    highest = torch.linalg.eigvalsh(hessian)[-1].item()
    assert top_eigenvalues(objective, tol=1e-4, seed=0).values[0] == pytest.approx(highest, rel=1e-3)
    assert trace(objective, seed=0, max_products=len(theta) + 5).value == pytest.approx(
        hessian.trace().item(), rel=0.2
    )


@pytest.mark.parametrize("case", CASES)
def test_slices_and_perturbations_are_those_of_the_loss(case):
    model, theta, at = prepared(case)
    objective = objective_of(case, model)
    directions = filter_normalized_directions(objective, 2, seed=0)
    points = [theta + step * directions.vectors[:, 0] for step in (-1.0, 0.0, 1.0)]
    expected = [at(point.requires_grad_()).item() for point in points]
    np.testing.assert_allclose(line(objective, directions, steps=3).loss, expected)
    plane = surface(objective, directions, steps=3)
    assert {round(value, 9) for value in expected} <= {round(value, 9) for value in plane.loss.flatten()}
    gradient, hessian = hessian_of(at, theta)
    ahead = at((theta + 0.05 * gradient / gradient.norm()).requires_grad_()).item()
    found = sharpness(objective, rho=0.05, restarts=0, seed=0)
    assert found.one_step == pytest.approx(ahead - expected[1])
    average = average_sharpness(objective, sigma=1e-3, max_draws=200, seed=0)
    assert average.value == pytest.approx(0.5e-6 * hessian.trace().item(), abs=5 * average.standard_error)
    torch.testing.assert_close(
        torch.as_tensor(diagonal(objective, seed=0, max_products=len(theta)).values), hessian.diagonal()
    )
    sharpness_profile(objective, seed=0)


def test_every_measure_takes_a_network_whose_outputs_are_derivatives():
    model, theta, _ = prepared("Hamiltonian network")
    objective = objective_of("Hamiltonian network", model)
    spectral_density(objective, seed=0)
    layer_traces(objective, seed=0)
    relative_flatness(objective, seed=0)
    assert objective.ggnvp(theta).shape == theta.shape


@pytest.mark.parametrize("linearize", ["measured", False])
def test_parts_of_the_curvature_of_scores_that_are_derivatives(linearize):
    torch.manual_seed(0)
    model = EnergyClassifier().double()
    objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS, CLASSES), linearize=linearize)
    curvature_parts(objective, seed=0)


def test_samples_have_the_gradients_of_a_loss_that_takes_derivatives():
    model, _, _ = prepared("invariance")
    found = sample_curvature(objective_of("invariance", model), seed=0)
    for row in range(3):
        model.zero_grad()
        invariance(model(INPUTS[row : row + 1]), CLASSES[row : row + 1]).backward()
        norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
        assert found.gradient_norm[row] == pytest.approx(norm.item())


def test_a_subset_of_the_weights_keeps_the_inner_step_in_all_of_them():
    model, theta, at = prepared("MAML")
    part = objective_of("MAML", model, parameters=lambda name: name.startswith("2."))
    _, hessian = hessian_of(at, theta)
    size = part.n_parameters
    torch.testing.assert_close(part.hvp(torch.eye(size, dtype=D)), hessian[-size:, -size:])
    whole = objective_of("MAML", model).subset(parameters=lambda name: name.startswith("2."))
    torch.testing.assert_close(whole.hvp(torch.eye(size, dtype=D)), hessian[-size:, -size:])


def test_a_derivative_that_is_cut_off_from_the_weights_is_refused():
    def cut_off(model, points):
        points = points.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(model(points).sum(), points)
        return (slopes.square().sum(1) - 1).square().mean() + model(points).square().mean()

    objective = Objective.of_loss(cut_off, network(4, 1).double(), INPUTS)
    with pytest.raises(ValueError, match="its gradient is not that of its loss"):
        objective.gradient()


def test_derivatives_of_what_depends_on_no_variable_name_the_remedy():
    def detached(model, points):
        return torch.autograd.grad(model(points).detach().sum(), list(model.parameters()))[0].sum()

    with pytest.raises(ValueError, match=r"own derivatives cannot be taken.*torch\.func\.grad"):
        Objective.of_loss(detached, network(4, 1).double(), INPUTS)
