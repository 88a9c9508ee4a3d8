"""Direct products keep the graphs of first derivatives within the memory budget, and are those of dense matrices."""

import pytest
import torch
from torch import nn
from torch.profiler import profile
from torch.utils.checkpoint import checkpoint

from landscape import GaussNewton, Hessian, Objective
from landscape.matrices import FunctionalHessian
from tests.conftest import build, dense_gauss_newton, dense_hessian, some_vectors

cross_entropy = nn.CrossEntropyLoss()
DENSE = {
    Hessian: dense_hessian,
    GaussNewton: dense_gauss_newton,
    FunctionalHessian: lambda *case: dense_hessian(*case) - dense_gauss_newton(*case),
}
"""Matrix -> (model, inputs, targets) -> the same as a dense matrix."""


class Checkpointed(nn.Module):
    """The MLP of the tests, whose first layers are run again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.layers = build("mlp")[0]

    def forward(self, x):
        return self.layers[3:](checkpoint(self.layers[:3], x, use_reentrant=False))


class OverwritesItsOutput(nn.Module):
    """A layer whose derivative needs what it overwrites."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(72, 3, dtype=torch.float64)

    def forward(self, x):
        scores = self.layer(x.flatten(1)).sigmoid()
        return scores.mul_(2)


def direct(model, data, **options):
    return Objective(model, cross_entropy, data, linearize=False, **options)


def runs_of(model, call):
    """How often the model runs within a call."""
    runs = []
    handle = model.register_forward_hook(lambda *_: runs.append(1))
    call()
    handle.remove()
    return len(runs)


@pytest.mark.parametrize("matrix", DENSE)
@pytest.mark.parametrize("chunk_size", [10, 37])
def test_products_after_the_first_run_no_model_and_are_those_of_the_dense_matrix(matrix, chunk_size):
    model, *data = build("mlp")
    objective = direct(model, tuple(data), chunk_size=chunk_size)
    vectors, dense = some_vectors(objective.n_parameters), DENSE[matrix](model, *data)
    operator = matrix(objective)
    operator @ vectors
    assert runs_of(objective.model, lambda: operator @ vectors) == 0
    for block in (vectors, vectors[:, 1]):
        torch.testing.assert_close(operator @ block, dense @ block, rtol=1e-9, atol=1e-11)


def test_products_at_moved_weights_are_those_of_these_weights():
    model, *data = build("mlp")
    objective, vectors = direct(model, tuple(data), chunk_size=10), some_vectors(383)
    objective.hvp(vectors)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    moved = Hessian(objective, torch.cat([each.detach().flatten() for each in model.parameters()]))
    for _ in range(2):
        torch.testing.assert_close(
            moved @ vectors, dense_hessian(model, *data) @ vectors, rtol=1e-9, atol=1e-11
        )


def test_data_changed_in_place_are_noticed():
    model, inputs, targets = build("mlp")
    objective, vectors = direct(model, (inputs, targets)), some_vectors(383)
    objective.hvp(vectors)
    inputs.mul_(2)
    expected = dense_hessian(model, inputs, targets) @ vectors
    torch.testing.assert_close(objective.hvp(vectors), expected, rtol=1e-9, atol=1e-11)


def test_a_model_that_overwrites_what_its_derivative_needs_is_refused_as_torch_refuses_it():
    objective = direct(OverwritesItsOutput(), tuple(build("mlp")[1:]))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        objective.hvp(objective.theta)


def test_nothing_is_kept_of_a_model_that_saves_memory_by_checkpoints():
    model, *data = build("mlp")
    objective, vectors = direct(Checkpointed(), tuple(data)), some_vectors(383)
    expected = dense_hessian(model, *data) @ vectors
    for _ in range(2):
        torch.testing.assert_close(objective.hvp(vectors), expected, rtol=1e-9, atol=1e-11)
        assert objective.kept_bytes == 0


def test_nothing_is_kept_within_a_callers_own_hooks_on_saved_tensors():
    model, *data = build("mlp")
    objective, vectors = direct(model, tuple(data)), some_vectors(383)
    expected = dense_hessian(model, *data) @ vectors
    with torch.autograd.graph.save_on_cpu():
        for _ in range(2):
            torch.testing.assert_close(objective.hvp(vectors), expected, rtol=1e-9, atol=1e-11)
    assert objective.kept_bytes == 0


@pytest.mark.parametrize("budget", [2**16, 2**18, 2**20, 2**30])
def test_what_is_kept_fits_into_a_quarter_of_the_memory_budget(budget):
    model, inputs, targets = build("cnn-batchnorm-dropout")
    data = inputs.repeat(10, 1, 1, 1), targets.repeat(10)
    objective = direct(model, data, chunk_size=37, memory_budget=budget)
    objective.hvp(objective.theta)
    assert objective.kept_bytes <= budget / 4
    assert (objective.kept_bytes > 0) == (budget > 2**18)
    kept = objective.kept_bytes
    objective.hvp(objective.theta)
    assert objective.kept_bytes == kept
    objective.release()
    assert objective.kept_bytes == 0


@pytest.mark.parametrize("name", ["mlp", "relu-mlp", "cnn-batchnorm-dropout"])
def test_the_bytes_that_are_kept_are_those_that_torch_allocates(name):
    model, inputs, targets = build(name)
    # many samples, beside which single numbers and Python's own objects are small
    data = inputs.repeat(30, 1, 1, 1), targets.repeat(30)
    objective = direct(model, data, chunk_size=len(data[1]))
    # the first product has other objects made, such as those of the checks
    objective.hvp(objective.theta)
    objective.release()
    with profile(profile_memory=True) as seen:
        product = objective.hvp(objective.theta)
    allocated = sum(event.self_cpu_memory_usage for event in seen.events()) - product.nbytes
    own_data = sum(each.nbytes for each in data)
    # the data are no copies here, but counted, because they are copies on another device
    assert objective.kept_bytes - own_data - 3 * objective.theta.nbytes <= allocated
    assert allocated <= objective.kept_bytes
