"""The empirical Fisher matrix and the diagonal, against dense matrices in float64."""

import math

import numpy as np
import pytest
import scipy
import torch
from torch import nn
from torch.func import functional_call

from landscape import EmpiricalFisher, Objective, diagonal, top_eigenvalues, trace
from landscape.krylov import SymmetricOperator, diagonal_of
from tests.conftest import build, dense_hessian, flat

D = torch.float64


def per_sample_gradients(model, loss_fn, inputs, targets):
    weights = {name: p.detach() for name, p in model.eval().named_parameters()}

    def loss(weights, x, y):
        return loss_fn(functional_call(model, weights, (x.unsqueeze(0),)), y.unsqueeze(0))

    rows = []
    for x, y in zip(inputs, targets, strict=True):

        def of_tensors(*tensors, x=x, y=y):
            return loss(dict(zip(weights, tensors, strict=True)), x, y)

        gradients = torch.autograd.functional.jacobian(of_tensors, tuple(weights.values()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk_size", [10, 37])
@pytest.mark.parametrize("name", ["mlp", "cnn-batchnorm-dropout", "attention", "unreached"])
def test_the_empirical_fisher_is_the_mean_of_outer_products_of_gradients(name, chunk_size):
    model, inputs, targets = build(name)
    loss_fn = nn.CrossEntropyLoss()
    gradients = per_sample_gradients(model, loss_fn, inputs, targets)
    objective = Objective(model, loss_fn, (inputs, targets), chunk_size=chunk_size)
    block = torch.randn(len(flat(model)), 2, dtype=D, generator=torch.Generator().manual_seed(0))
    expected = gradients.T @ (gradients @ block) / len(inputs)
    torch.testing.assert_close(EmpiricalFisher(objective) @ block, expected, rtol=1e-9, atol=1e-12)
    assert trace(objective, matrix="empirical-fisher", rtol=None, max_products=60).value == pytest.approx(
        gradients.square().sum().item() / len(inputs), rel=0.2
    )


def test_samples_of_the_empirical_fisher_count_as_in_the_loss():
    model, inputs, targets = build("mlp")
    weights = torch.tensor([1.0, 2.0, 9.0], dtype=D)
    loss_fn = nn.CrossEntropyLoss(weight=weights)
    gradients = per_sample_gradients(model, nn.CrossEntropyLoss(), inputs, targets)
    counted = weights[targets]
    expected = gradients.T @ (counted.unsqueeze(1) * gradients) / counted.sum()
    found = EmpiricalFisher(Objective(model, loss_fn, (inputs, targets), chunk_size=10))
    torch.testing.assert_close(found @ torch.eye(len(expected), dtype=D), expected, rtol=1e-9, atol=1e-12)


def test_the_empirical_fisher_of_a_loss_without_outputs():
    model, inputs, targets = build("mlp")
    cross_entropy = nn.CrossEntropyLoss()
    whole = Objective(model, cross_entropy, (inputs, targets))
    found = Objective.of_loss(lambda m, batch: cross_entropy(m(batch[0]), batch[1]), model, (inputs, targets))
    vector = torch.ones_like(whole.theta)
    torch.testing.assert_close(EmpiricalFisher(found) @ vector, EmpiricalFisher(whole) @ vector)
    top = top_eigenvalues(found, 1, matrix="empirical-fisher", tol=1e-6)
    assert top.values[0] == pytest.approx(
        top_eigenvalues(whole, 1, matrix="empirical-fisher", tol=1e-6).values[0]
    )


def test_the_diagonal_is_exact_with_as_many_products_as_weights():
    model, inputs, targets = build("mlp")
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    found = diagonal(objective, max_products=1000)
    expected = dense_hessian(model, inputs, targets).diagonal().numpy()
    np.testing.assert_allclose(found.values, expected, rtol=1e-9, atol=1e-12)
    assert found.converged
    assert not found.standard_errors.any()
    assert found.products == len(expected) == found.parameters.sum()


def random_matrix(n=60):
    a = torch.randn(n, n, dtype=D, generator=torch.Generator().manual_seed(3))
    return a @ a.T / n


def test_standard_errors_of_the_diagonal_are_the_spread_of_its_estimates():
    matrix = random_matrix()
    runs = [
        diagonal_of(
            SymmetricOperator.of_matrix(matrix),
            rtol=None,
            max_products=20,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in range(400)
    ]
    values = torch.stack([run.values for run in runs])
    errors = torch.stack([run.standard_errors for run in runs])
    assert (values.mean(0) - matrix.diagonal()).norm() < 4 * values.std(0).norm() / math.sqrt(len(runs))
    torch.testing.assert_close(errors.square().mean(0), values.var(0), rtol=0.5, atol=0)
    assert errors.square().mean().item() == pytest.approx(values.var(0).mean().item(), rel=0.05)


def pairs(coupling, n=1000):
    """Each row has one other entry, as rows of a linear layer with a bias have: two signs decide over its estimate."""
    matrix = torch.eye(n, dtype=D)
    index = torch.arange(n)
    matrix[index, index ^ 1] = coupling
    return matrix


@pytest.mark.parametrize("coupling", [0.2, 0.01])
@pytest.mark.parametrize("probes", [2, 8])
def test_the_errors_of_the_entries_are_students_whatever_the_probes_are(coupling, probes):
    """Random signs gave 1 entry in 128 an error of 0, where two signs agreed in all of 8 probes."""
    found = [
        diagonal_of(
            SymmetricOperator.of_matrix(pairs(coupling)),
            rtol=None,
            max_products=probes,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in range(4)
    ]
    # one entry of each pair, because both share their probes
    errors = torch.cat([each.standard_errors[::2] for each in found])
    distances = torch.cat([each.values[::2] - 1 for each in found]) / errors
    assert scipy.stats.kstest(distances.numpy(), scipy.stats.t(probes - 1).cdf).pvalue > 0.01
    assert errors.min() > 0


def test_a_diagonal_that_is_no_number_has_no_error_and_has_not_converged():
    model, inputs, targets = build("mlp")
    with torch.no_grad():
        model[1].weight[0, 0] = math.nan
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    for most in (20, objective.n_parameters):
        found = diagonal(objective, max_products=most)
        assert np.isnan(found.values).all()
        assert np.isnan(found.standard_errors).all()
        assert not found.converged


@pytest.mark.parametrize(
    "product",
    [lambda block: block, lambda block: torch.einsum("ij,jk->ik", 2 * torch.eye(50, dtype=D), block)],
)
def test_the_diagonal_asks_for_products_of_blocks_and_leaves_the_probes_as_they_are(product):
    """An operator multiplies blocks (n, k), and may give back what it got."""
    draws = torch.Generator().manual_seed(0)
    found = diagonal_of(SymmetricOperator(product, 50), rtol=None, max_products=20, generator=draws)
    np.testing.assert_allclose(found.values, product(torch.ones(50, 1, dtype=D)).flatten(), rtol=1e-10)


def test_the_diagonal_ends_when_it_is_known_well_enough():
    matrix = torch.diag(torch.arange(1.0, 301.0, dtype=D)) + 0.01 * random_matrix(300)
    operator = SymmetricOperator.of_matrix(matrix)
    found = diagonal_of(operator, rtol=0.1, max_products=100, generator=torch.Generator().manual_seed(0))
    assert (found.converged, found.products) == (True, 8)
    hard = diagonal_of(
        SymmetricOperator.of_matrix(random_matrix(300)),
        rtol=1e-3,
        max_products=30,
        generator=torch.Generator(),
    )
    assert (hard.converged, hard.products) == (False, 30)


@pytest.mark.parametrize(
    ("options", "field"), [({"max_products": 1}, "max_products"), ({"rtol": 0.0}, "rtol")]
)
def test_bad_arguments_are_named(options, field):
    model, inputs, targets = build("mlp")
    with pytest.raises(ValueError, match=f"^{field}"):
        diagonal(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), **options)


@pytest.mark.parametrize("samples", [3, 5])
def test_outputs_whose_first_axis_is_that_of_classes_are_not_taken_for_rows_of_samples(samples):
    """With as many classes as samples in a chunk, the scores of a class were taken for those of a sample."""
    model, inputs, targets = build("mlp")
    inputs, targets = inputs[:15], targets[:15]
    by_classes = Objective(
        model,
        lambda outputs, batch: nn.functional.cross_entropy(outputs.T, batch[1]),
        (inputs, targets),
        forward=lambda model, batch: model(batch[0]).T,
        chunk_size=samples,
    )
    by_samples = Objective(model, nn.CrossEntropyLoss(), (inputs, targets), chunk_size=samples)
    vector = torch.randn(by_samples.n_parameters, dtype=D, generator=torch.Generator().manual_seed(0))
    expected = EmpiricalFisher(by_samples) @ vector
    torch.testing.assert_close(EmpiricalFisher(by_classes) @ vector, expected, rtol=1e-10, atol=1e-14)
