"""Optimizers and schedulers that a training loop cannot step, and states of other optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


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


def check_that_it_can_be_stepped(optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None) -> None:
    """Checks that optimizer and scheduler take a step without arguments.

    Raises:
        ValueError: the optimizer needs a closure, or the scheduler needs a metric.
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


def check_that_the_state_fits(stored: dict[str, Any], optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Checks that a stored state belongs to an optimizer of this kind.

    Raises:
        ValueError: the state has the settings of another kind of optimizer.
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
