"""A real model with its data, and what is asked of each: all measures against plain torch, in float64."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape import (
    Objective,
    filter_normalized_directions,
    sharpness,
    spectral_density,
    spectral_measure,
    surface,
    top_eigenvalues,
    trace,
)
from ncsam import SAM

D = torch.float64
RHO = 0.05


@dataclass
class Client:
    """A model, and its loss.

    Attributes:
        model: in float64, without Dropout.
        loss: (model) -> the mean loss of all data as one batch, in plain torch.
        objective: of the model.
        few: names of some parameters, at most some hundred numbers, whose Hessian is computed whole.
        sam: (model, rho) -> SAM, for `backward(batch)` or `backward(*pair)`.
        batches: what `backward` is called with, one batch.
    """

    model: nn.Module
    loss: Callable[[nn.Module], Tensor]
    objective: Objective
    few: tuple[str, ...]
    sam: Callable[[nn.Module, float], SAM] | None = None
    batch: tuple = ()


def generic(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64, its weights moved a little: at the first ones, often zeros, ReLUs lie on their kinks."""
    generator = torch.Generator().manual_seed(seed)
    model = model.to(D)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=D, generator=generator))
    return model


def at(client: Client, names: tuple[str, ...], theta: Tensor) -> nn.Module:
    """A copy of the model in evaluation mode, with theta as the parameters of these names."""
    moved = copy.deepcopy(client.model).eval()
    parameters = [moved.get_parameter(name) for name in names]
    with torch.no_grad():
        nn.utils.vector_to_parameters(theta, parameters)
    return moved


def gradient_at(client: Client, names: tuple[str, ...], theta: Tensor) -> Tensor:
    moved = at(client, names, theta)
    parameters = [moved.get_parameter(name) for name in names]
    found = torch.autograd.grad(client.loss(moved), parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


def difference(client: Client, names: tuple[str, ...], theta: Tensor, vector: Tensor) -> Tensor:
    """The Hessian times a vector, by a difference of gradients."""
    step = 1e-6 * theta.norm().clamp(min=1.0) / vector.norm()
    ahead, behind = (gradient_at(client, names, theta + h * vector) for h in (step, -step))
    return (ahead - behind) / (2 * step)


def check_derivatives(client: Client) -> None:
    objective = client.objective
    names, theta = objective.names, objective.theta
    assert objective.value() == pytest.approx(client.loss(at(client, names, theta)).item(), rel=1e-10)
    slope = gradient_at(client, names, theta)
    torch.testing.assert_close(objective.gradient(), slope, rtol=1e-8, atol=1e-9 * slope.abs().max().item())
    vector = torch.randn(theta.shape, dtype=D, generator=torch.Generator().manual_seed(1))
    right = difference(client, names, theta, vector)
    assert (objective.hvp(vector) - right).norm() < 1e-5 * right.norm()


def check_spectrum(client: Client) -> None:
    """The largest eigenpair of all weights is one; the whole spectrum of a few is that of their dense matrix."""
    objective = client.objective
    names, theta = objective.names, objective.theta
    top = top_eigenvalues(objective, 1, tol=0.01, max_products=200)
    assert top.converged.all()
    vector = top.vectors[:, 0]
    error = difference(client, names, theta, vector) - float(top.values[0]) * vector
    assert error.norm() < 0.02 * abs(top.values[0])

    few = objective.subset(parameters=lambda name: name in client.few)
    columns = [
        difference(client, few.names, few.theta, column) for column in torch.eye(few.n_parameters, dtype=D)
    ]
    hessian = torch.stack(columns)
    values = torch.linalg.eigvalsh((hessian + hessian.T) / 2).numpy()
    size = np.abs(values).max()
    k = min(3, len(values))
    found = top_eigenvalues(few, k, tol=1e-6, max_products=20 * len(values))
    np.testing.assert_allclose(found.values, values[::-1][:k], atol=1e-5 * size)
    whole = trace(few, rtol=None, max_products=2 * len(values))
    assert whole.value == pytest.approx(values.sum(), abs=1e-4 * np.abs(values).sum())
    points, masses = spectral_measure(spectral_density(few, steps=len(values), seed=0))
    assert len(values) * points @ masses == pytest.approx(values.sum(), abs=0.3 * np.abs(values).sum())


def check_surface(client: Client) -> None:
    objective = client.objective
    directions = filter_normalized_directions(objective, 2, seed=0)
    plane = surface(objective, directions, steps=3, extent=0.3)
    for i, j in ((0, 2), (2, 1)):
        point = objective.theta + directions.vectors @ torch.tensor([plane.alpha[i], plane.beta[j]], dtype=D)
        right = client.loss(at(client, objective.names, point)).item()
        assert plane.loss[i, j] == pytest.approx(right, rel=1e-9)


def check_sharpness(client: Client) -> None:
    objective = client.objective
    found = sharpness(objective, rho=RHO, steps=3, restarts=0)
    slope = objective.gradient()
    highest = client.loss(at(client, objective.names, objective.theta + RHO * slope / slope.norm()))
    center = client.loss(at(client, objective.names, objective.theta))
    assert found.one_step == pytest.approx((highest - center).item(), rel=1e-7)
    assert found.value >= found.one_step


def check_training_step(client: Client) -> None:
    """SAM's gradient in training mode is that of plain torch; buffers move as in one pass."""
    model, plain = copy.deepcopy(client.model).train(), copy.deepcopy(client.model).train()
    parameters = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    slope = torch.autograd.grad(client.loss(plain), parameters, allow_unused=True, materialize_grads=True)
    buffers = {name: buffer.clone() for name, buffer in plain.named_buffers()}
    length = torch.sqrt(sum(part.square().sum() for part in slope))
    with torch.no_grad():
        for parameter, part in zip(parameters, slope, strict=True):
            parameter.add_(RHO / length * part)
    right = torch.autograd.grad(client.loss(plain), parameters, allow_unused=True, materialize_grads=True)

    if client.sam is not None:
        client.sam(model, RHO).backward(*client.batch)
        check_gradients(model, right)
    by_closure = copy.deepcopy(client.model).train()
    SAM(by_closure, nn.CrossEntropyLoss(), rho=RHO).backward(closure=lambda: client.loss(by_closure))
    check_gradients(by_closure, right)
    for name, buffer in by_closure.named_buffers():
        torch.testing.assert_close(buffer, buffers[name])


def check_gradients(model: nn.Module, right: tuple[Tensor, ...]) -> None:
    found = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    for own, expected in zip(found, right, strict=True):
        own = torch.zeros_like(expected) if own is None else own
        torch.testing.assert_close(own, expected, rtol=1e-7, atol=1e-10)


CHECKS = {
    "derivatives": check_derivatives,
    "spectrum": check_spectrum,
    "surface": check_surface,
    "sharpness": check_sharpness,
    "training step": check_training_step,
}
"""What is asked of each client."""
