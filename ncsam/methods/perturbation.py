"""Weights that are moved by a perturbation and put back bit by bit, as every sharpness-aware method does.

A list of tensors always follows the order of the model's trainable parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ncsam.methods.rounded_weights import warn_of_lost_perturbation
from ncsam.methods.sharded import own_parts, reshard


@dataclass(frozen=True)
class Compensation:
    """The noise that NCSAM simulated in one batch.

    Attributes:
        drawn: int64 (m,), positions in the batch of the samples that got temporary labels. If targets are classes of
            positions, places in the flattened targets.
        temporary_targets: int64 (m,), the temporary labels.
        gradient: g*, the gradient at w of the drawn samples' mean loss with their temporary labels. In a control, a
            random direction with the norm of g*.
        scale: s(t) with its sign. SAM's perturbation plus `scale` times g* is the perturbation before the projection.
        projected: whether that sum was longer than rho and was scaled down.
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
        gradient: the gradient at w that gives the perturbation its direction: that of `loss`, or for the oracle that of
            the loss of the true labels.
        perturbation: epsilon; the second gradient is taken at w + epsilon.
        compensation: NCSAM's simulated noise; None for other methods.
    """

    loss: Tensor
    gradient: list[Tensor]
    perturbation: list[Tensor]
    compensation: Compensation | None = None


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient, in `model.parameters()` order; DTensors under FSDP2."""
    reshard(model)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def perturbed(model: nn.Module, perturbation: list[Tensor]) -> Iterator[None]:
    """Inside the block the model is at w + perturbation; afterward, or after an error, the weights are w bit by bit.

    A copy of the weights is kept meanwhile, because w + e - e is not w in floating point.
    """
    parameters = own_parts([parameter.detach() for parameter in trainable_parameters(model)])
    saved = torch._foreach_mul(parameters, 1.0)
    try:
        added = own_parts(perturbation)
        torch._foreach_add_(parameters, added)
        warn_of_lost_perturbation(model, saved, parameters, added)
        # an autocast around this block keeps half-precision copies of the weights until it ends
        torch.clear_autocast_cache()
        yield
    finally:
        torch._foreach_copy_(parameters, saved)
        torch.clear_autocast_cache()


@contextmanager
def unmoved_buffers(model: nn.Module) -> Iterator[None]:
    """On leaving, all buffers are as they were, whatever forward passes within made of them.

    Such buffers are the running statistics of BatchNorm and InstanceNorm layers, and what a model keeps by itself, such
    as a center, a codebook or the vectors of a spectral norm. BatchNorm normalizes by the batch meanwhile, as in
    training.
    """
    held = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    buffers = [buffer for _, _, buffer in held]
    # not by `_version`, which BatchNorm leaves as it is
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for module, name, buffer in held:
            # a forward pass may also have put another tensor in its place
            module._buffers[name] = buffer
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)


@contextmanager
def stored_batch_norm_statistics(model: nn.Module) -> Iterator[None]:
    """Inside the block BatchNorm normalizes by its running statistics; all other layers are in training mode."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    try:
        for layer in layers:
            layer.eval()
        yield
    finally:
        for layer in layers:
            layer.train()


def check_radius(rho: float, name: str = "rho") -> None:
    """Raises ValueError unless rho is finite and not negative."""
    if not 0 <= rho < float("inf"):
        raise ValueError(f"{name}: the perturbation's radius must be at least 0 and finite, got {rho}")
