"""Optimizers and schedulers that a training loop cannot step or that miss a network, and states of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ncsam.methods.called_objects import called_by
from ncsam.methods.method import Method


def check_is_an_optimizer(optimizer: Any) -> None:
    """Raises TypeError for what is no optimizer, such as a list of several."""
    if hasattr(optimizer, "param_groups") and hasattr(optimizer, "step"):
        return
    found = f"a {type(optimizer).__name__}"
    if isinstance(optimizer, list | tuple):
        found += f" of {len(optimizer)}"
    raise TypeError(
        f"optimizer: must be one torch.optim.Optimizer, got {found}; give one whose groups of parameters have settings "
        'of their own, such as SGD([{"params": body, "lr": 0.01}, {"params": head, "lr": 0.1}])'
    )


def held_by(optimizer: torch.optim.Optimizer) -> set[int]:
    """The `id` of each parameter that the optimizer steps."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def check_that_it_trains_every_network(method: Method, optimizer: torch.optim.Optimizer) -> None:
    """Checks that each network of the method has a parameter in the optimizer.

    A network may be frozen in part, which is the caller's choice, and one without trainable parameters has no need of
    an optimizer. Averages of weights are no networks of `method.networks()`.

    Raises:
        ValueError: a network would keep its first weights.
    """
    held = held_by(optimizer)
    if not any(id(parameter) in held for parameter in method.parameters()):
        raise ValueError("optimizer: holds no parameter of this method; make it over method.parameters()")
    of_networks = [list(network.parameters()) for network in method.networks()]
    known = {id(parameter) for parameters in of_networks for parameter in parameters}
    own = [parameter for parameter in method.parameters() if id(parameter) not in known]
    for parameters in [*of_networks, own]:
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if trainable and not any(id(parameter) in held for parameter in trainable):
            raise ValueError(
                f"optimizer: holds no parameter of one of the networks that {type(method).__name__} trains, which "
                "would keep its first weights; make it over method.parameters() or freeze that network by "
                "requires_grad_(False)"
            )


def check_that_it_trains_the_loss(loss_fn: Any, optimizer: torch.optim.Optimizer) -> None:
    """Checks that the optimizer has a parameter of each module of the loss that has trainable ones.

    `method.parameters()` holds those of networks alone, and not the class centers or the temperature of a loss.

    Args:
        loss_fn: the training loss: a module, or a function that names modules.
        optimizer: of the training.

    Raises:
        ValueError: the parameters of the loss would keep their first values.
    """
    held = held_by(optimizer)
    for module in called_by(loss_fn):
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if trainable and not any(id(parameter) in held for parameter in trainable):
            kind = type(module).__name__
            raise ValueError(
                f"optimizer: holds no parameter of the loss ({kind}), which has trainable ones and would keep its "
                "first values; make the optimizer over [*method.parameters(), *loss_fn.parameters()] or freeze the "
                "loss by requires_grad_(False)"
            )


def check_that_it_can_be_stepped(optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None) -> None:
    """Checks that optimizer and scheduler take a step without arguments, and that the one is the other's.

    Raises:
        ValueError: the optimizer needs a closure, or the scheduler needs a metric or is that of another optimizer.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            "optimizer: LBFGS asks for the loss several times a step, which fit does not offer; take one that steps by "
            "a gradient, such as SGD or AdamW"
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(
            "scheduler: ReduceLROnPlateau follows a metric, which fit does not give it; take a schedule by epochs "
            "(build_schedule), or, without a checkpoint, step it in on_epoch by a metric such as test_loss"
        )
    scheduled = getattr(scheduler, "optimizer", optimizer)
    # a wrapper of an optimizer hands out its groups
    if scheduled.param_groups is not optimizer.param_groups:
        raise ValueError(
            "scheduler: is that of another optimizer, so that this one would keep its learning rate; make it with the "
            "optimizer that fit gets"
        )


def check_that_the_state_fits(stored: dict[str, Any], optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Checks that a stored state belongs to an optimizer of this kind, over as many weights.

    Raises:
        ValueError: the state has the settings of another kind of optimizer, or groups of other sizes.
    """
    theirs, ours = (
        {name for group in groups for name in group}
        for groups in (stored["param_groups"], optimizer.param_groups)
    )
    if theirs - ours and ours - theirs:
        raise ValueError(
            f"checkpoint: {path} was written with another optimizer than {type(optimizer).__name__}; give the same, "
            "delete the file, or name another"
        )
    before, now = (
        [len(group["params"]) for group in groups]
        for groups in (stored["param_groups"], optimizer.param_groups)
    )
    if before != now:
        raise ValueError(
            f"checkpoint: {path} was written with an optimizer over other weights, groups of {before}, and this one "
            f"has groups of {now}; give the same, delete the file, or name another"
        )
