"""The parts of the curvature against dense matrices in float64."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from landscape import Objective, curvature_parts
from tests.conftest import build, dense_gauss_newton, dense_hessian

cross_entropy = nn.CrossEntropyLoss()


def dense_jacobian(model, inputs):
    """(samples, classes, parameters)"""
    model = model.eval()
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    found = jacrev(lambda values: functional_call(model, values, (inputs,)))(parameters)
    return torch.cat([part.flatten(2) for part in found.values()], 2)


@pytest.fixture(scope="module")
def case():
    return build("relu-mlp")


@pytest.fixture(scope="module")
def found(case):
    model, inputs, targets = case
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10)
    return curvature_parts(objective, tol=1e-4, max_products=100)


def test_the_jacobian_is_that_of_the_outputs(case, found):
    model, inputs, _ = case
    jacobian = dense_jacobian(model, inputs)
    assert found.jacobian_trace == pytest.approx(jacobian.square().sum().item() / len(inputs), rel=0.05)
    assert found.jacobian_trace_error <= 0.05 * found.jacobian_trace
    gram = torch.einsum("ncp,ncq->pq", jacobian, jacobian) / len(inputs)
    assert found.jacobian_top == pytest.approx(torch.linalg.eigvalsh(gram)[-1].item(), rel=1e-6)


def test_the_uncertainty_is_the_impurity_of_the_softmax(case, found):
    model, inputs, _ = case
    probabilities = model.eval()(inputs).softmax(1)
    assert found.uncertainty == pytest.approx((1 - probabilities.square().sum(1)).mean().item())


def test_gauss_newton_and_functional_hessian_are_the_dense_ones(case, found):
    gauss_newton = dense_gauss_newton(*case)
    functional = dense_hessian(*case) - gauss_newton
    assert found.gauss_newton_trace == pytest.approx(gauss_newton.trace().item(), rel=0.05)
    assert found.functional_norm == pytest.approx(functional.norm().item(), rel=0.05)
    assert found.functional_smallest == pytest.approx(torch.linalg.eigvalsh(functional)[0].item(), rel=1e-6)
    assert found.converged


def test_what_has_no_budget_is_not_converged(case):
    model, inputs, targets = case
    found = curvature_parts(Objective(model, cross_entropy, (inputs, targets)), max_products=10, rtol=1e-3)
    assert not found.converged
    assert math.isfinite(found.jacobian_trace)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.MultiMarginLoss()])
def test_other_losses_are_refused(case, loss):
    model, inputs, targets = case
    with pytest.raises(ValueError, match="^objective"):
        curvature_parts(Objective(model, loss, (inputs, targets)))
