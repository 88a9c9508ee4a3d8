"""Traps of the peers: a model that is moved, switched or left with gradients by being measured."""

import hashlib

import pytest
import torch
from torch import nn

from landscape import (
    Objective,
    filter_normalized_directions,
    line,
    sharpness,
    surface,
    top_eigenvalues,
    trace,
)
from tests.conftest import build, dense_hessian

cross_entropy = nn.CrossEntropyLoss()

MEASUREMENTS = {
    "value": lambda o: o.value(),
    "gradient": lambda o: o.gradient(),
    "eigenvalues": lambda o: top_eigenvalues(o, 2),
    "eigenvalues by pyhessian": lambda o: top_eigenvalues(o, 1, which="magnitude", method="pyhessian"),
    "trace": lambda o: trace(o, max_products=10),
    "trace by pyhessian": lambda o: trace(o, max_products=10, method="pyhessian"),
    "line": lambda o: line(o, filter_normalized_directions(o, 1), steps=3),
    "surface": lambda o: surface(o, filter_normalized_directions(o, 2), steps=3),
    "sharpness": lambda o: sharpness(o, steps=2),
}


def state_of(model):
    """A digest of all that a measurement could disturb: weights, buffers, gradients, modes, random state."""
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    for parameter in model.parameters():
        grad = parameter.grad
        digest.update(repr((parameter.requires_grad, None if grad is None else grad.tolist())).encode())
    digest.update(repr([module.training for module in model.modules()]).encode())
    return digest.hexdigest()


def repeat(measurement, objective):
    while True:
        measurement(objective)


def model_in_training():
    """In train mode but for one module, with gradients of its own and a frozen parameter."""
    model, inputs, targets = build("cnn-batchnorm-dropout")
    model, inputs = model.float(), inputs.float()
    model.train()
    model[2].eval()
    cross_entropy(model(inputs), targets).backward()
    model[0].bias.requires_grad_(False)
    return model, inputs, targets


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_leaves_the_model_as_it_was(name):
    model, inputs, targets = model_in_training()
    before = state_of(model)
    MEASUREMENTS[name](Objective(model, cross_entropy, (inputs, targets), chunk_size=10))
    assert state_of(model) == before


@pytest.mark.parametrize("name", ["value", "gradient", "eigenvalues", "surface"])
def test_so_does_one_that_fails_half_way(name):
    model, inputs, targets = model_in_training()
    calls, is_made = [], False

    def failing(outputs, targets_):
        calls.extend([1] * is_made)
        if len(calls) >= 3:
            raise RuntimeError("out of memory")
        return cross_entropy(outputs, targets_)

    before = state_of(model)
    objective = Objective(model, failing, (inputs, targets), chunk_size=10)
    is_made = True
    with pytest.raises(RuntimeError, match="out of memory"):
        repeat(MEASUREMENTS[name], objective)
    assert state_of(model) == before


def test_the_mode_of_the_model_does_not_change_the_measurement():
    model, inputs, targets = build("cnn-batchnorm-dropout")
    spectrum = torch.linalg.eigvalsh(dense_hessian(model.eval(), inputs, targets))
    model.train()
    found = top_eigenvalues(Objective(model, cross_entropy, (inputs, targets)), 1, tol=1e-8)
    assert found.values[0] == pytest.approx(spectrum[-1].item(), rel=1e-8)


def test_later_training_does_not_move_an_objective():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    before = objective.value()
    with torch.no_grad():
        model[1].weight.add_(1)
    assert objective.value() == before


class BoundedWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, max_norm=0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.embedding(x).mean(1))


class BoundedLinear(nn.Linear):
    def forward(self, x):
        self.weight.data.clamp_(-0.1, 0.1)
        return super().forward(x.double())


@pytest.mark.parametrize("model", [BoundedWords(), BoundedLinear(5, 3).double()])
def test_a_model_that_changes_its_weights_in_place_changes_those_of_no_one_else(model):
    words = torch.randint(0, 7, (37, 5), generator=torch.Generator().manual_seed(0))
    objective = Objective(model, cross_entropy, (words, torch.arange(37) % 3))
    theta = objective.theta + 1
    own, given = objective.theta.clone(), theta.clone()
    for point in (None, theta):
        objective.value(point)
        with pytest.raises(ValueError, match="writes to its weights"):
            objective.gradient(point)
        with pytest.raises(ValueError, match="writes to its weights"):
            objective.hvp(given, point)
    assert torch.equal(objective.theta, own)
    assert torch.equal(theta, given)
