"""What every sharpness-aware method shares: a gradient at w, a perturbation, the gradient at w + perturbation.

A list of tensors below always follows the order of the model's trainable parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the mean loss over the samples, a scalar."""


@dataclass(frozen=True)
class Compensation:
    """The noise that NCSAM simulated in one batch.

    Attributes:
        drawn: int64 (m,), positions in the batch of the samples that were given temporary labels.
        temporary_targets: int64 (m,), those labels.
        gradient: g*, the gradient at w of the drawn samples' mean loss with their temporary labels.
        scale: s(t) with its sign: what g* was multiplied by before it was added to SAM's perturbation.
        projected: the sum was longer than rho and was scaled down.
    """

    drawn: Tensor
    temporary_targets: Tensor
    gradient: list[Tensor]
    scale: float
    projected: Tensor


@dataclass(frozen=True)
class Ascent:
    """The first half of a sharpness-aware step, taken at the weights w.

    Attributes:
        loss: mean loss of the batch at w, detached.
        gradient: the gradient at w that points the perturbation: of that loss (of the true labels' for the
            oracle).
        perturbation: epsilon, at which the second gradient is taken.
        compensation: NCSAM's simulated noise; None for other methods.
    """

    loss: Tensor
    gradient: list[Tensor]
    perturbation: list[Tensor]
    compensation: Compensation | None = None


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient, in `model.parameters()` order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def gradient(loss: Tensor, model: nn.Module, *, retain_graph: bool = False) -> list[Tensor]:
    """The gradient of `loss`, zero for parameters it does not reach; `.grad` is not touched."""
    return list(
        torch.autograd.grad(
            loss,
            trainable_parameters(model),
            retain_graph=retain_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The l2 norm of all entries together, a scalar tensor."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]))


def inner_product(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """The sum of the products of all entries, a scalar tensor."""
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def scaled_to(tensors: Sequence[Tensor], length: float) -> list[Tensor]:
    """The same direction with l2 norm `length`; zero stays zero. SAM's rho g / ||g|| (Eq. 9)."""
    total = norm(tensors)
    factor = torch.where(total == 0, torch.zeros_like(total), length / total)
    return [tensor * factor for tensor in tensors]


def projected_onto_ball(tensors: Sequence[Tensor], radius: float) -> tuple[list[Tensor], Tensor]:
    """Proj of Eq. 13: scaled down to norm `radius` if longer, else unchanged; and whether it was longer."""
    total = norm(tensors)
    longer = total > radius
    factor = torch.where(longer, radius / total, torch.ones_like(total))
    return [tensor * factor for tensor in tensors], longer


@contextmanager
def perturbed(model: nn.Module, perturbation: Sequence[Tensor]) -> Iterator[None]:
    """The model at w + perturbation; on leaving, also by an exception, the weights are w again, bit by bit."""
    parameters = trainable_parameters(model)
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, offset in zip(parameters, perturbation, strict=True):
                parameter.add_(offset)
        yield
    finally:
        with torch.no_grad():
            for parameter, weights in zip(parameters, saved, strict=True):
                parameter.copy_(weights)


@contextmanager
def frozen_batch_norm_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm layers normalise by the batch as in training, but their running statistics do not move."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def backward_at(
    model: nn.Module, loss_fn: LossFunction, perturbation: Sequence[Tensor], inputs: Tensor, targets: Tensor
) -> None:
    """Adds the gradient at w + perturbation to `.grad`; weights and BatchNorm statistics end as they were."""
    with perturbed(model, perturbation), frozen_batch_norm_statistics(model):
        loss_fn(model(inputs), targets).backward()


def check_radius(rho: float) -> None:
    """Raises ValueError unless rho is a positive finite number."""
    if not 0 < rho < float("inf"):
        raise ValueError(f"rho: the perturbation's radius must be positive and finite, got {rho}")
