"""The parts of the curvature against dense matrices in float64."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from landscape import Objective, curvature_parts, curvature_parts_by_labels, trace
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


@pytest.fixture
def shared(case):
    model, inputs, targets = case
    objective = Objective(model, cross_entropy, (inputs, targets))
    return objective, trace(objective, matrix="gauss-newton", max_products=16, seed=3)


def test_two_errors_are_the_reach_of_the_interval_and_those_within_the_tolerance_converge(shared):
    objective, of_trace = shared
    found = curvature_parts(objective, max_products=16, seed=3)
    assert found.gauss_newton_trace == of_trace.value
    assert 2 * found.gauss_newton_trace_error == pytest.approx(of_trace.high - of_trace.value)
    within = of_trace.standard_error / of_trace.value
    for factor in (0.9, 1.1):
        again = trace(
            objective, matrix="gauss-newton", max_products=of_trace.products, rtol=factor * within, seed=3
        )
        assert (again.value, again.converged) == (of_trace.value, factor > 1)


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


def truncated(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none").clamp(max=1.2).mean()


def without_one_slope(outputs, targets):
    """The value of cross-entropy, but not its slope in the last sample."""
    each = nn.functional.cross_entropy(outputs, targets, reduction="none")
    return torch.cat([each[:-1], each[-1:].detach()]).mean()


def by_hand(outputs, targets):
    return -outputs.softmax(1)[torch.arange(len(targets)), targets].log().mean()


@pytest.mark.parametrize(
    ("loss", "is_right"), [(truncated, False), (without_one_slope, False), (by_hand, True)]
)
def test_a_loss_must_be_cross_entropy_for_every_sample(case, loss, is_right):
    model, inputs, _ = case
    model = copy.deepcopy(model)
    right = model(inputs).argmax(1)
    # the first samples have small losses, and the last one a large one
    labels = torch.cat([right[:-1], (right[-1:] + 1) % 3])
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.mul_(4)
    each = nn.functional.cross_entropy(model(inputs), labels, reduction="none")
    assert each[:2].max() < 1.2 < each[-1]
    objective = Objective(model, loss, (inputs, labels), chunk_size=7)
    if is_right:
        curvature_parts(objective, max_products=10)
        return
    with pytest.raises(ValueError, match="^objective: the parts are those of the mean cross-entropy"):
        curvature_parts(objective, max_products=10)


def test_parts_of_several_labels_are_those_of_each_alone_in_fewer_products(case):
    model, inputs, targets = case
    observed, clean = (
        Objective(model, cross_entropy, (inputs, labels)) for labels in (targets, targets.flip(0))
    )
    asked = {"max_products": 16, "tol": 0.3}
    together = curvature_parts_by_labels({"observed": observed, "again": observed, "clean": clean}, **asked)
    alone = {"observed": curvature_parts(observed, **asked), "clean": curvature_parts(clean, **asked)}
    assert together["observed"] == together["again"] == alone["observed"]
    assert together["clean"].products < alone["clean"].products
    assert replace(together["clean"], products=alone["clean"].products) == alone["clean"]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("inputs", "'clean' has other inputs than 'observed'"),
        ("weights", "'clean' is of another model or other weights than 'observed'"),
        ("statistics", "'clean' is of another model or other weights than 'observed'"),
        ("function", "'clean' is of another model or other weights than 'observed'"),
    ],
)
def test_parts_of_several_labels_need_one_model_and_the_same_inputs(what, says):
    model, inputs, targets = build("cnn-batchnorm-dropout")
    other = copy.deepcopy(model)
    if what == "weights":
        nn.init.zeros_(next(other.parameters()))
    elif what == "statistics":
        other[1].running_var.mul_(4)
    elif what == "function":
        other[2] = nn.Tanh()
    objectives = {
        "observed": Objective(model, cross_entropy, (inputs, targets)),
        "clean": Objective(other, cross_entropy, (inputs + (what == "inputs"), targets)),
    }
    with pytest.raises(ValueError, match=f"^objectives: {says}"):
        curvature_parts_by_labels(objectives)


def test_parts_of_no_labels_are_refused():
    with pytest.raises(ValueError, match="^objectives: holds none"):
        curvature_parts_by_labels({})
