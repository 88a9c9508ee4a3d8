"""Weights that the optimizer does not hold: in a step they count as frozen ones."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam.methods.frozen_weights import frozen
from ncsam.methods.method import Method
from ncsam.optimizer_checks import held_by


def check_that_none_is_perturbed(method: Method, optimizer: torch.optim.Optimizer) -> None:
    """Checks a model in DistributedDataParallel, which waits for the gradient of each weight that it was made with.

    Raises:
        ValueError: the method would perturb weights that the optimizer does not hold.
    """
    held = held_by(optimizer)
    for network in method.networks() if method.rho is not None else ():
        unheld = [name for name, weight in network.named_parameters() if _is_unheld(weight, held)]
        if unheld and _is_distributed(network):
            raise ValueError(
                f"optimizer: does not hold {', '.join(map(repr, unheld[:3]))} of the model, which "
                f"{type(method).__name__} would perturb; freeze what is not trained by requires_grad_(False) before "
                "DistributedDataParallel wraps the model"
            )


def unheld_weights_frozen(
    method: Method, optimizer: torch.optim.Optimizer, *, steps: bool = True
) -> AbstractContextManager[None]:
    """A block with passes of `method`, in which weights that the optimizer does not hold require no gradient.

    So perturbations, their norms and penalties are of the weights that are trained, in all methods. A callback may add
    weights to the optimizer between two blocks. Those in DistributedDataParallel stay, see
    `check_that_none_is_perturbed`. Those of a method that runs gradient hooks stay in its steps, because a hook may
    train them.
    """
    held = held_by(optimizer)
    unheld = [
        weight
        for network in method.networks()
        if not ((steps and method.runs_gradient_hooks) or _is_distributed(network))
        for weight in network.parameters()
        if _is_unheld(weight, held)
    ]
    return frozen(unheld)


def _is_unheld(weight: nn.Parameter, held: set[int]) -> bool:
    return weight.requires_grad and id(weight) not in held


def _is_distributed(network: nn.Module) -> bool:
    return any(isinstance(module, DistributedDataParallel) for module in network.modules())
