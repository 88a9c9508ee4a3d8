"""Derivatives in float32 that rounding spoils: measured with a warning that says by how much; others without one."""

import copy
import warnings

import pytest
import torch
from torch import nn

from landscape import Hessian, Objective, sharpness, top_eigenvalues, trace
from landscape.matrices.rounding import warn_of_rounded_products

D = torch.float64
GENERATOR = torch.Generator().manual_seed(1)
INPUTS, LABELS = (
    torch.randn(48, 6, generator=GENERATOR),
    torch.randint(0, 3, (48,), generator=GENERATOR),
)


def trained(model, loss_fn, targets, steps, rate=1e-2):
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model(INPUTS), targets).backward()
        optimizer.step()
    return model.eval()


def network(outputs=3, width=64, norm=nn.Identity):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), norm(), nn.ReLU(), nn.Linear(width, outputs))


def that_fits_all_labels(scale=1.0):
    """Cross-entropy of about 1e-6, and less with the scores scaled up."""
    model = trained(network(), nn.functional.cross_entropy, LABELS, 1500)
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.mul_(2 * scale)
    return model


def said_by(run):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run()
    return [str(each.message) for each in found if "rounding in torch.float32" in str(each.message)]


def share(message):
    return float(message.partition("samples by ")[2].split()[0])


def gradient(model, inputs, create_graph=False):
    loss = nn.functional.cross_entropy(model(inputs), LABELS)
    parts = torch.autograd.grad(loss, list(model.parameters()), create_graph=create_graph)
    return torch.cat([part.flatten() for part in parts])


def relative(own, precise):
    return ((own.to(D) - precise).norm() / precise.norm()).item()


def measures(objective):
    objective.gradient()
    top_eigenvalues(objective, 1, max_products=6)
    trace(objective, max_products=6, seed=0)
    sharpness(objective, rho=0.05, steps=2)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_a_network_that_fits_all_labels_is_measured_with_one_warning(scale):
    model = that_fits_all_labels(scale)
    objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS, LABELS))
    (message,) = said_by(lambda: measures(objective))
    precise = copy.deepcopy(model).to(D)
    right = relative(gradient(model, INPUTS), gradient(precise, INPUTS.to(D)))
    # the message compares the samples half by half
    assert right / 3 < share(message) < 3 * right
    assert "dtype=torch.float64" in message
    assert not said_by(lambda: measures(objective.subset(samples=torch.arange(20))))


def test_its_objective_in_float64_raises_no_warning():
    objective = Objective(that_fits_all_labels(), nn.CrossEntropyLoss(), (INPUTS, LABELS), dtype=D)
    assert not said_by(lambda: measures(objective))


def test_a_product_that_rounding_spoils_raises_a_warning_by_itself():
    model = that_fits_all_labels(1.5)
    few = Objective(model, nn.CrossEntropyLoss(), (INPUTS, LABELS)).in_float64((INPUTS, LABELS))
    (message,) = said_by(lambda: warn_of_rounded_products(Hessian.rule, model, torch.float32, few, None))

    def product(model, inputs):
        draws = torch.Generator().manual_seed(0)
        vector = torch.randint(0, 2, few.theta.shape, generator=draws).to(inputs) * 2 - 1
        parts = torch.autograd.grad(
            gradient(model, inputs, create_graph=True) @ vector, list(model.parameters())
        )
        return torch.cat([part.flatten() for part in parts])

    precise = copy.deepcopy(model).to(D)
    assert share(message) == pytest.approx(
        relative(product(model, INPUTS), product(precise, INPUTS.to(D))), rel=0.1
    )


def sums(noise):
    return INPUTS.sum(1, keepdim=True) + noise * torch.randn(
        48, 1, generator=torch.Generator().manual_seed(0)
    )


ORDINARY = {
    "fresh": (network, nn.functional.cross_entropy, LABELS, 0),
    "trained": (network, nn.functional.cross_entropy, LABELS, 300),
    "with batch norm": (
        lambda: network(norm=lambda: nn.BatchNorm1d(64)),
        nn.functional.cross_entropy,
        LABELS,
        200,
    ),
    # the gradients of samples cancel
    "at a minimum": (lambda: nn.Linear(6, 1), nn.functional.mse_loss, sums(0.1), 2000),
    "far off": (lambda: network(1), nn.functional.mse_loss, 1e4 * sums(0.1) + 1e5, 100),
}


@pytest.mark.parametrize(("make", "loss_fn", "targets", "steps"), ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_network_in_float32_raises_no_warning(make, loss_fn, targets, steps):
    model = trained(make(), loss_fn, targets, steps)
    objective = Objective(model, loss_fn, (INPUTS, targets))
    assert objective.value() > 1e-4
    assert not said_by(lambda: measures(objective))


def test_a_divergence_near_its_minimum_is_measured_with_a_warning():
    teacher = network()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[-1].bias += 1e-5 * torch.arange(3)
        targets = teacher(INPUTS).log_softmax(1)

    def divergence(outputs, targets):
        return nn.functional.kl_div(outputs.log_softmax(1), targets, reduction="batchmean", log_target=True)

    assert said_by(Objective(student, divergence, (INPUTS, targets)).gradient)
