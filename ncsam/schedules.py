"""Learning rates over the epochs, by name. Each may begin with a linear warm-up of the rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
)

from ncsam.options import Registry
from ncsam.plain_numbers import with_plain_numbers


def constant(optimizer: Optimizer, epochs: int, *, warmup_epochs: int = 0) -> LRScheduler:
    """The optimizer's learning rate in all epochs."""
    return _warmed_up(optimizer, epochs, warmup_epochs, lambda _: ConstantLR(optimizer, 1.0, total_iters=0))


def step(
    optimizer: Optimizer,
    epochs: int,
    *,
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
    warmup_epochs: int = 0,
) -> LRScheduler:
    """Multiplies the learning rate by `factor` after each milestone, a share of the epochs (He et al. 2016).

    A milestone is rounded to a whole epoch.
    """
    ascending = list(milestones) == sorted(set(milestones))
    if not (milestones and ascending and all(0 < share < 1 for share in milestones)):
        raise ValueError(
            f"milestones: must be ascending shares of the training above 0 and below 1, got {list(milestones)}"
        )
    if not 0 < factor <= 1:
        raise ValueError(f"factor: must be above 0 and at most 1, got {factor}")
    ends = [round(share * epochs) for share in milestones]
    if ends[0] < 1 or len(set(ends)) < len(ends):
        raise ValueError(
            f"milestones: {list(milestones)} with epochs={epochs} are rounded to the ends of the epochs {ends}, which "
            "must be different and at least 1; give fewer milestones or more epochs"
        )
    if ends[0] <= warmup_epochs:
        raise ValueError(
            f"milestones: the first is epoch {ends[0]}, within the warm-up of {warmup_epochs} epochs; give later ones"
        )
    return _warmed_up(
        optimizer,
        epochs,
        warmup_epochs,
        lambda _: MultiStepLR(optimizer, [end - warmup_epochs for end in ends], factor),
    )


def cosine(optimizer: Optimizer, epochs: int, *, warmup_epochs: int = 0) -> LRScheduler:
    """Half a cosine from the learning rate to 0 at the end of the last epoch (Loshchilov and Hutter 2017)."""
    return _warmed_up(
        optimizer, epochs, warmup_epochs, lambda count: CosineAnnealingLR(optimizer, T_max=count)
    )


def _warmed_up(
    optimizer: Optimizer, epochs: int, warmup_epochs: int, after: Callable[[int], LRScheduler]
) -> LRScheduler:
    """The rate rises for w epochs by equal steps of 1 / (w + 1). In the remaining epochs it follows `after`."""
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(
            f"warmup_epochs: must be at least 0 and below the {epochs} epochs of the training, got {warmup_epochs}"
        )
    if warmup_epochs == 0:
        return after(epochs)
    rising = LinearLR(optimizer, start_factor=1 / (warmup_epochs + 1), total_iters=warmup_epochs)
    return SequentialLR(optimizer, [rising, after(epochs - warmup_epochs)], milestones=[warmup_epochs])


SCHEDULES: dict[str, Callable[..., LRScheduler]] = {"constant": constant, "step": step, "cosine": cosine}
"""Name -> (optimizer, epochs, options by name) -> scheduler, which is stepped once an epoch."""

SCHEDULE_REGISTRY = Registry("schedule", SCHEDULES)
"""The schedules of the learning rate with their options."""


def schedule_options(name: str) -> dict[str, Any]:
    """The options of a schedule, each with its default value.

    Raises:
        ValueError: the schedule is unknown.
    """
    return {key: option.default for key, option in SCHEDULE_REGISTRY.options(name).items()}


@with_plain_numbers
def build_schedule(name: str, optimizer: Optimizer, *, epochs: int, **options: Any) -> LRScheduler:
    """Builds a schedule by name, for the `scheduler` of `fit`.

    Args:
        name: one of `SCHEDULES`.
        optimizer: its learning rate is the highest one of the schedule.
        epochs: number of epochs of the training.
        options: see `schedule_options(name)`. All schedules have `warmup_epochs`: in these epochs the learning rate
            rises by equal steps.

    Raises:
        ValueError: the schedule or an option is unknown, or an option is out of range.
    """
    SCHEDULE_REGISTRY.check(name, options)
    return SCHEDULES[name](optimizer, epochs, **options)
